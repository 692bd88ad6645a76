// Open files made at random: random_graphs READY DIRECTORY SEED GRAPHS.
//
// Below one root, each graph is a small tree of processes that open, duplicate, inherit, register, fill and close
// descriptors, each with its own row of random numbers. What /proc and kcmp tell of them is compared by the test. When
// all stand still, READY gets the pid of the root.
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

enum { kMostNumber = 120, kSteps = 14, kDeepest = 2, kFiles = 3, kMostProcesses = 65536 };

static uint64_t state;
static struct {
  volatile unsigned used;
  volatile char stands[kMostProcesses];
} * shared;  // of all processes: which of them stand still
static char directory[PATH_MAX];

static unsigned pick(unsigned below) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return (unsigned)((state * 0x2545f4914f6cdd1dull) >> 33) % below;
}
static bool one_in(unsigned n) {
  return pick(n) == 0;
}

static void die(const char* what) {
  perror(what);
  kill(0, SIGKILL);
}

// A descriptor that is open; -1 if chance finds none.
static int some_fd(void) {
  for (int tries = 0; tries < 40; tries++) {
    const int fd = (int)pick(kMostNumber);
    if (fcntl(fd, F_GETFD) >= 0) return fd;
  }
  return -1;
}

// A random number instead of the lowest one.
static void scatter(int fd) {
  if (fd < 0 || fcntl(fd, F_GETFD) < 0 || one_in(3)) return;
  const int number = 3 + (int)pick(kMostNumber - 3);
  if (number == fd || fcntl(number, F_GETFD) >= 0) return;
  if (dup3(fd, number, one_in(2) ? O_CLOEXEC : 0) < 0) die("dup3");
  if (!one_in(5)) close(fd);
}

static void fill(int fd) {
  char bytes[5000];
  const unsigned count = one_in(4) ? 0 : 1 + pick(sizeof bytes);
  for (unsigned i = 0; i < count; i++) bytes[i] = (char)('a' + pick(26));
  const int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || (flags & O_ACCMODE) == O_RDONLY || (flags & O_PATH) != 0 || count == 0) return;
  // Never block: a full pipe takes what it has room for.
  fcntl(fd, F_SETFL, flags | O_NONBLOCK);
  if (write(fd, bytes, count) < 0 && errno != EAGAIN && errno != EPIPE) die("write");
  fcntl(fd, F_SETFL, flags);
}

static void open_pipe(void) {
  int ends[2];
  if (pipe2(ends, (one_in(3) ? O_NONBLOCK : 0) | (one_in(4) ? O_DIRECT : 0) | (one_in(2) ? O_CLOEXEC : 0)) != 0)
    die("pipe");
  if (one_in(4)) fcntl(ends[1], F_SETPIPE_SZ, 4096 << pick(6));
  if (!one_in(3)) fill(ends[1]);
  if (one_in(6)) close(ends[pick(2)]);
  scatter(ends[0]);
  scatter(ends[1]);
}

static void open_fifo(unsigned graph) {
  char path[PATH_MAX + 32];
  snprintf(path, sizeof path, "%s/fifo.%u.%u", directory, graph, pick(kFiles));
  if (mkfifo(path, 0600) != 0 && errno != EEXIST) die("mkfifo");
  static const int modes[] = {O_RDWR, O_RDONLY, O_WRONLY};
  const int fd = open(path, modes[pick(3)] | O_NONBLOCK | (one_in(2) ? O_CLOEXEC : 0));
  if (fd < 0) {
    if (errno == ENXIO) return;  // nobody reads
    die("open of a fifo");
  }
  if (one_in(2)) fill(fd);
  scatter(fd);
}

static void open_file(unsigned graph) {
  char path[PATH_MAX + 32];
  snprintf(path, sizeof path, "%s/file.%u.%u", directory, graph, pick(kFiles));
  static const int flags[] = {O_RDWR, O_RDONLY, O_WRONLY | O_APPEND, O_RDWR | O_NOATIME, O_PATH};
  const int made = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0640);  // O_PATH makes none
  if (made < 0 || close(made) != 0) die("creation of a file");
  const int fd = open(path, flags[pick(5)] | (one_in(2) ? O_CLOEXEC : 0));
  if (fd < 0) die("open");
  fill(fd);
  if (one_in(2)) lseek(fd, pick(100000), SEEK_SET);
  scatter(fd);
}

static void open_event_file(void) {
  int fd;
  sigset_t set;
  switch (pick(5)) {
    case 0:
      fd = eventfd(pick(1000), (one_in(2) ? EFD_SEMAPHORE : 0) | (one_in(2) ? EFD_NONBLOCK : 0));
      break;
    case 1:
      sigemptyset(&set);
      sigaddset(&set, 1 + (int)pick(31));
      fd = signalfd(-1, &set, one_in(2) ? SFD_CLOEXEC : 0);
      break;
    case 2: {
      fd = timerfd_create(one_in(2) ? CLOCK_MONOTONIC : CLOCK_BOOTTIME, one_in(2) ? TFD_NONBLOCK : 0);
      const struct itimerspec times = {{pick(100), 0}, {100000 + (time_t)pick(1000), 5}};
      if (fd >= 0) timerfd_settime(fd, 0, &times, NULL);
      break;
    }
    case 3:
      fd = memfd_create("graph", one_in(2) ? MFD_ALLOW_SEALING : 0);
      if (fd >= 0) fill(fd);
      break;
    default:
      fd = open(one_in(2) ? "/dev/null" : "/dev/zero", O_RDWR);
  }
  if (fd < 0) die("a file of events");
  scatter(fd);
}

// Those must keep the number under which they are registered, which chance does not.
static bool is_signalfd(int fd) {
  char path[32], link[64] = "";
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  return readlink(path, link, sizeof link - 1) > 0 && strstr(link, "signalfd") != NULL;
}

static void watch(void) {
  int epoll = -1;
  if (one_in(2)) {
    epoll = epoll_create1(one_in(2) ? EPOLL_CLOEXEC : 0);
    if (epoll < 0) die("epoll_create1");
    const int number = 3 + (int)pick(kMostNumber - 3);
    if (fcntl(number, F_GETFD) < 0) {
      if (dup2(epoll, number) < 0) die("dup2");
      close(epoll);
      epoll = number;
    }
  }
  for (int i = 0; i < 6; i++) {
    const int poll = epoll >= 0 ? epoll : some_fd(), target = some_fd();
    if (poll < 0 || target < 0 || poll == target || is_signalfd(target)) continue;
    struct epoll_event event = {.events = EPOLLIN | (one_in(3) ? EPOLLOUT : 0) | (one_in(4) ? EPOLLET : 0)};
    event.data.u64 = ((uint64_t)pick(1u << 31) << 32) | pick(1u << 31);
    // Most of what may fail by chance: no epoll, cannot be watched, watched already, a cycle.
    epoll_ctl(poll, EPOLL_CTL_ADD, target, &event);
  }
}

static void change(void) {
  const int fd = some_fd();
  if (fd < 3) return;
  switch (pick(4)) {
    case 0:
      close(fd);
      break;
    case 1:
      scatter(dup(fd));
      break;
    case 2:
      fcntl(fd, F_SETFD, one_in(2) ? FD_CLOEXEC : 0);
      break;
    default:
      fcntl(fd, F_SETFL, one_in(2) ? O_NONBLOCK : 0);
  }
}

static void live(unsigned graph, int depth);

// One process at a time does something, so that a seed always leads to the same.
static void beget(unsigned graph, int depth, uint64_t seed, long shares) {
  const unsigned index = shared->used++;
  if (index >= kMostProcesses) die("too many processes");
  const long child = syscall(SYS_clone, shares | SIGCHLD, 0, 0, 0, 0);
  if (child < 0) die("clone");
  if (child == 0) {
    state = seed;
    live(graph, depth);
    shared->stands[index] = 1;
    for (;;) pause();
  }
  while (!shared->stands[index]) usleep(200);
}

static void live(unsigned graph, int depth) {
  const unsigned steps = kSteps / 2 + pick(kSteps);
  for (unsigned i = 0; i < steps; i++) switch (pick(9)) {
      case 0:
      case 1:
        open_pipe();
        break;
      case 2:
        open_fifo(graph);
        break;
      case 3:
        open_file(graph);
        break;
      case 4:
        open_event_file();
        break;
      case 5:
        watch();
        break;
      case 6:
        if (depth < kDeepest)
          beget(graph, depth + 1, state ^ (0x9e3779b97f4a7c15ull * (i + 1)), one_in(6) ? CLONE_FILES : 0);
        break;
      default:
        change();
    }
}

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  snprintf(directory, sizeof directory, "%s", argv[2]);
  const unsigned graphs = (unsigned)atoi(argv[4]);
  signal(SIGPIPE, SIG_IGN);
  shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) die("mmap");
  for (unsigned i = 0; i < graphs; i++)
    beget(i, 0, ((uint64_t)atoi(argv[3]) * 1000003 + i) * 0x9e3779b97f4a7c15ull + 1, 0);
  char temporary[PATH_MAX + 8], pid[16];
  snprintf(temporary, sizeof temporary, "%s.new", argv[1]);
  snprintf(pid, sizeof pid, "%d", getpid());
  const int fd = open(temporary, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0 || write(fd, pid, strlen(pid)) < 0 || close(fd) != 0 || rename(temporary, argv[1]) != 0) die("ready");
  for (;;) pause();
}
