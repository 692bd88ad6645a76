// inotify: watches of directories, files, links and file systems under their numbers, gaps among them; masks that act
// once; owner and flags. No event comes from the checkpoint itself, although a watched directory is in use.
#include <signal.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "subject.h"

enum { kSetNextWd = 0x40044900, kFarWd = 1000000 };
static int notify;

static int watch(const char* name, uint32_t mask) {
  int wd = inotify_add_watch(notify, subject_path(name), mask);
  REQUIRE(wd > 0);
  return wd;
}
static void touch(const char* name) {
  int fd = open(subject_path(name), O_WRONLY | O_CREAT, 0600);
  CHECK(fd >= 0 && write(fd, "x", 1) == 1, "touch %s", name);
  close(fd);
}
static int waiting_bytes(int fd) {
  int bytes = -1;
  CHECK(ioctl(fd, FIONREAD, &bytes) == 0, "FIONREAD");
  return bytes;
}
// Exactly this one event is there, and is taken.
static void expect(const char* what, int wd, uint32_t mask, const char* name) {
  char room[4096] __attribute__((aligned(8)));
  ssize_t got = read(notify, room, sizeof room);
  struct inotify_event* event = (void*)room;
  CHECK(got >= (ssize_t)sizeof *event, "%s: no event", what);
  if (got < (ssize_t)sizeof *event) return;
  CHECK(event->wd == wd && event->mask == mask && (name == NULL || (event->len > 0 && strcmp(event->name, name) == 0)),
        "%s: event %#x of wd %d instead of %#x of %d", what, event->mask, event->wd, mask, wd);
  CHECK(got == (ssize_t)(sizeof *event + event->len), "%s: %zd bytes of events", what, got);
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  notify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  int blocking = inotify_init();
  REQUIRE(notify >= 0 && blocking >= 0 && fcntl(notify, F_SETOWN, getpid()) == 0);
  const char* directories[] = {"first", "gone", "third", "far", "busy"};
  for (int i = 0; i < 5; i++) REQUIRE(mkdir(subject_path(directories[i]), 0700) == 0);
  REQUIRE(symlink("nowhere", subject_path("link")) == 0);
  touch("file");
  touch("busy/file");
  touch("busy/mapped");
  REQUIRE(mkfifo(subject_path("busy/fifo"), 0600) == 0);
  int first = watch("first", IN_CREATE | IN_ONLYDIR), gone = watch("gone", IN_CREATE);
  int third = watch("third", IN_MODIFY | IN_EXCL_UNLINK), file = watch("file", IN_MODIFY);
  int link_itself = watch("link", IN_DELETE_SELF | IN_DONT_FOLLOW);
  int memory = inotify_add_watch(notify, "/dev/shm", IN_UNMOUNT), proc = inotify_add_watch(notify, "/proc", IN_UNMOUNT);
  REQUIRE(memory > 0 && proc > 0 && inotify_rm_watch(notify, gone) == 0);
  REQUIRE(ioctl(notify, kSetNextWd, kFarWd) == 0);
  int far = watch("far", IN_DELETE);
  REQUIRE(far == kFarWd);
  char drain[4096];
  REQUIRE(read(notify, drain, sizeof drain) > 0);  // that one was removed

  int used = open(subject_path("busy/file"), O_RDWR), fifo = open(subject_path("busy/fifo"), O_RDWR);
  int directory = open(subject_path("busy"), O_RDONLY | O_DIRECTORY), mapped = open(subject_path("busy/mapped"), O_RDWR);
  // An empty fifo: what is in flight is looked at by tee(2), which counts as an access since Linux 6.7.
  REQUIRE(used >= 0 && fifo >= 0 && directory >= 0 && ftruncate(mapped, kPageBytes) == 0);
  REQUIRE(chdir(subject_path("busy")) == 0);
  char* page = mmap(NULL, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, mapped, 0);
  REQUIRE(page != MAP_FAILED && page[0] == 'x');
  close(mapped);
  int busy = inotify_add_watch(blocking, subject_path("busy"), IN_ALL_EVENTS);
  int busy_file = inotify_add_watch(blocking, subject_path("busy/file"), IN_ALL_EVENTS);
  int busy_fifo = inotify_add_watch(blocking, subject_path("busy/fifo"), IN_ALL_EVENTS);
  REQUIRE(busy == 1 && busy_file == 2 && busy_fifo == 3);

  for (subject_ready(); subject_next(); subject_verdict()) {
    CHECK(waiting_bytes(blocking) == 0 && waiting_bytes(notify) == 0, "events of the checkpoint itself");
    CHECK((fcntl(notify, F_GETFL) & O_NONBLOCK) != 0 && (fcntl(blocking, F_GETFL) & O_NONBLOCK) == 0, "O_NONBLOCK");
    CHECK(fcntl(notify, F_GETOWN) == getpid(), "owner");
    int once = watch("gone", IN_CREATE | IN_ONESHOT);
    CHECK(once > kFarWd, "the next number is %d", once);
    CHECK(inotify_rm_watch(notify, once) == 0 && read(notify, drain, sizeof drain) > 0, "removing it");
    touch("first/new");
    expect("create", first, IN_CREATE, "new");
    CHECK(unlink(subject_path("first/new")) == 0, "unlink");
    int modified = open(subject_path("third/new"), O_WRONLY | O_CREAT, 0600);
    CHECK(write(modified, "x", 1) == 1, "write");
    expect("modify", third, IN_MODIFY, "new");
    CHECK(unlink(subject_path("third/new")) == 0 && write(modified, "x", 1) == 1 && waiting_bytes(notify) == 0,
          "IN_EXCL_UNLINK");
    close(modified);
    touch("file");
    expect("file", file, IN_MODIFY, NULL);
    touch("far/new");
    CHECK(unlink(subject_path("far/new")) == 0, "unlink");
    expect("far", far, IN_DELETE, "new");
    CHECK(waiting_bytes(blocking) == 0, "events of nothing");
    CHECK(pread(used, drain, 1, 0) == 1 && read(blocking, drain, sizeof drain) > 0, "the busy directory");
    if (!subject_last) continue;
    CHECK(unlink(subject_path("link")) == 0, "unlink");
    struct inotify_event events[2];
    CHECK(read(notify, events, sizeof events) == sizeof events && events[0].wd == link_itself &&
              events[0].mask == IN_DELETE_SELF && events[1].mask == IN_IGNORED,
          "the end of the link");
  }
  return subject_status();
}
