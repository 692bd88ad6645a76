// fanotify: groups with marks of an inode, a mount and a file system, what they ignore, and the events that follow.
#include <sys/fanotify.h>
#include <sys/ioctl.h>

#include "subject.h"

static int waiting_bytes(int fd) {
  int bytes = -1;
  CHECK(ioctl(fd, FIONREAD, &bytes) == 0, "FIONREAD");
  return bytes;
}
static void mark(int group, unsigned how, uint64_t mask, const char* path) {
  if (fanotify_mark(group, FAN_MARK_ADD | how, mask, AT_FDCWD, path) != 0) die("fanotify_mark %s", path);
}
static void touch(const char* path) {
  int fd = open(path, O_WRONLY | O_CREAT, 0600);
  CHECK(fd >= 0 && write(fd, "x", 1) == 1, "touch %s", path);
  close(fd);
}
// One event with this mask for a file that ends so.
static void expect(const char* what, int group, uint64_t mask, const char* end) {
  struct fanotify_event_metadata event;
  char path[64], name[PATH_MAX] = "";
  ssize_t got = read(group, &event, sizeof event);
  CHECK(got == sizeof event && event.mask == mask, "%s: %zd bytes, mask %#llx", what, got,
        (unsigned long long)event.mask);
  if (got != sizeof event) return;
  snprintf(path, sizeof path, "/proc/self/fd/%d", event.fd);
  CHECK(readlink(path, name, sizeof name - 1) > 0, "readlink");
  CHECK(strlen(name) >= strlen(end) && strcmp(name + strlen(name) - strlen(end), end) == 0, "%s: %.200s", what, name);
  CHECK(event.pid == getpid() && (fcntl(event.fd, F_GETFD) & FD_CLOEXEC) != 0, "%s: pid or flags", what);
  close(event.fd);
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  int group = fanotify_init(FAN_CLASS_NOTIF | FAN_NONBLOCK, O_RDONLY | O_CLOEXEC);
  if (group < 0) subject_skip("fanotify");
  int names = fanotify_init(FAN_REPORT_DFID_NAME | FAN_UNLIMITED_QUEUE | FAN_CLOEXEC, O_RDWR);
  int elsewhere = fanotify_init(FAN_CLASS_NOTIF | FAN_NONBLOCK, O_RDONLY);
  REQUIRE(names >= 0 && elsewhere >= 0);
  REQUIRE(mkdir(subject_path("watched"), 0700) == 0 && mkdir(subject_path("names"), 0700) == 0);
  touch(subject_path("watched/ignored"));
  mark(group, 0, FAN_CLOSE_WRITE | FAN_EVENT_ON_CHILD, subject_path("watched"));
  mark(group, FAN_MARK_IGNORED_MASK | FAN_MARK_IGNORED_SURV_MODIFY, FAN_CLOSE_WRITE, subject_path("watched/ignored"));
  mark(names, 0, FAN_CREATE | FAN_ONDIR, subject_path("names"));
  // What others do there is not to be seen: events that hardly ever happen.
  mark(elsewhere, FAN_MARK_MOUNT, FAN_OPEN_EXEC, "/dev/shm");
  mark(elsewhere, FAN_MARK_FILESYSTEM, FAN_OPEN_EXEC, "/dev/pts");
  for (subject_ready(); subject_next(); subject_verdict()) {
    CHECK(waiting_bytes(group) == 0 && waiting_bytes(names) == 0 && waiting_bytes(elsewhere) == 0,
          "events of the checkpoint itself");
    touch(subject_path("watched/ignored"));
    CHECK(waiting_bytes(group) == 0, "an event that is ignored");
    touch(subject_path("watched/file"));
    expect("child", group, FAN_CLOSE_WRITE, "/watched/file");
    CHECK(mkdir(subject_path("names/made"), 0700) == 0, "mkdir");
    char text[1024];
    ssize_t got = read(names, text, sizeof text);
    struct fanotify_event_metadata* event = (void*)text;
    CHECK(got > (ssize_t)sizeof *event && event->mask == (FAN_CREATE | FAN_ONDIR) && event->fd == FAN_NOFD, "name");
    CHECK(rmdir(subject_path("names/made")) == 0, "rmdir");
  }
  return subject_status();
}
