// pidfds: of itself, of a child and a grandchild, of dead processes; shared, and in two tasks.
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "subject.h"

static int open_pidfd(pid_t pid, unsigned flags) {
  int fd = (int)syscall(SYS_pidfd_open, pid, flags);
  REQUIRE(fd >= 0);
  return fd;
}
static long told(int fd, const char* name) {
  char path[64], line[128];
  snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
  FILE* file = fopen(path, "r");
  long value = -2;
  while (file && fgets(line, sizeof line, file))
    if (strncmp(line, name, strlen(name)) == 0 && line[strlen(name)] == ':') value = strtol(line + strlen(name) + 1, NULL, 10);
  if (file) fclose(file);
  return value;
}
static ino_t inode(int fd) {
  struct stat st;
  return fstat(fd, &st) == 0 ? st.st_ino : 0;
}
static int dead(int status) {
  pid_t pid = fork();
  if (pid == 0) _exit(status);
  int fd = open_pidfd(pid, 0);
  REQUIRE(waitpid(pid, NULL, 0) == pid);
  return fd;
}
static volatile sig_atomic_t got;
static void handle(int number) {
  got += number == SIGUSR1;
}

struct board {
  volatile pid_t grandchild;
  volatile int signals, child_sees_inode;
};
static struct board* board;
static void count(int number) {
  board->signals += number == SIGUSR1;
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  board = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  int one = dead(3), other = dead(4), twin = dup(one);
  pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    pid_t grandchild = fork();
    if (grandchild == 0) {
      signal(SIGUSR1, count);
      board->grandchild = getpid();
      for (;;) pause();
    }
    signal(SIGUSR1, count);
    for (;;) {
      board->child_sees_inode = inode(one) == inode(twin) && inode(one) != inode(other);
      sleep_ms(2);
    }
  }
  REQUIRE(WAIT_UNTIL(board->grandchild != 0));
  signal(SIGUSR1, handle);
  int self = open_pidfd(getpid(), O_NONBLOCK), to_child = open_pidfd(child, 0),
      to_grandchild = open_pidfd(board->grandchild, 0);
  // The same process by another description.
  int again = open_pidfd(child, 0);

  for (subject_ready(); subject_next(); subject_verdict()) {
    int before = board->signals, own = got;
    CHECK(syscall(SYS_pidfd_send_signal, self, SIGUSR1, NULL, 0) == 0 && got == own + 1, "to itself");
    CHECK(syscall(SYS_pidfd_send_signal, to_child, SIGUSR1, NULL, 0) == 0 && WAIT_UNTIL(board->signals == before + 1),
          "to the child");
    CHECK(syscall(SYS_pidfd_send_signal, to_grandchild, SIGUSR1, NULL, 0) == 0 &&
              WAIT_UNTIL(board->signals == before + 2),
          "to the grandchild");
    CHECK(told(self, "Pid") == getpid() && told(to_child, "Pid") == child && told(again, "Pid") == child &&
              told(to_grandchild, "Pid") == board->grandchild,
          "the pids");
    CHECK((fcntl(self, F_GETFL) & O_NONBLOCK) != 0 && (fcntl(again, F_GETFL) & O_NONBLOCK) == 0, "flags");
    CHECK(told(one, "Pid") == -1 && told(other, "Pid") == -1 && told(twin, "Pid") == -1, "the dead");
    struct pollfd ended = {.fd = one, .events = POLLIN}, alive = {.fd = to_child, .events = POLLIN};
    CHECK(poll(&ended, 1, 0) == 1 && poll(&alive, 1, 0) == 0, "who has ended");
    CHECK(syscall(SYS_pidfd_send_signal, one, 0, NULL, 0) == -1 && errno == ESRCH, "a signal to the dead");
    CHECK(inode(one) == inode(twin) && inode(to_child) == inode(again), "inodes of the same process");
    // Before Linux 6.9 all pidfds have one inode.
    bool told_apart = inode(self) != inode(to_child);
    CHECK(!told_apart || (inode(one) != inode(other) && WAIT_UNTIL(board->child_sees_inode)), "inodes of two");
  }
  kill(board->grandchild, SIGKILL);
  kill(child, SIGKILL);
  return subject_status();
}
