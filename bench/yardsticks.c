// What the kernel of this machine takes for the things that every dump and restore is made of. Figures of two machines,
// or of two days, are to be compared by their ratio to these.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { kRounds = 400, kMappings = 24, kPagesEach = 2 };

static double now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static int compare(const void* a, const void* b) {
  double x = *(const double*)a, y = *(const double*)b;
  return (x > y) - (x < y);
}

static void measure(const char* what, void (*once)(void)) {
  static double us[kRounds];
  for (int i = 0; i < kRounds; i++) {
    double begin = now_us();
    once();
    us[i] = now_us() - begin;
  }
  qsort(us, kRounds, sizeof *us, compare);
  printf("  %-58s %8.1f us\n", what, us[kRounds / 2]);
}

static void die(const char* what) {
  fprintf(stderr, "yardsticks: %s: %s\n", what, strerror(errno));
  exit(1);
}

static void call(void) {
  syscall(SYS_getppid);
}

static void read_proc(void) {
  char text[1024];
  int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
  if (fd < 0 || read(fd, text, sizeof text) <= 0) die("/proc/self/stat");
  close(fd);
}

static void fork_and_wait(void) {
  pid_t pid = fork();
  if (pid == 0) _exit(0);
  if (pid < 0 || waitpid(pid, NULL, 0) != pid) die("fork");
}

static void fork_and_exec(void) {
  pid_t pid = fork();
  if (pid == 0) {
    execl("/proc/self/exe", "yardsticks", "--empty", (char*)NULL);
    _exit(1);
  }
  int status;
  if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0) die("exec");
}

static void* end(void* argument) {
  return argument;
}
static void thread(void) {
  pthread_t t;
  if (pthread_create(&t, NULL, end, NULL) != 0 || pthread_join(t, NULL) != 0) die("pthread_create");
}

static pid_t tracee;
static void next_stop(void) {
  int status;
  if (ptrace(PTRACE_CONT, tracee, 0, 0) != 0 || waitpid(tracee, &status, __WALL) != tracee || !WIFSTOPPED(status))
    die("ptrace");
}
static void start_tracee(void) {
  tracee = fork();
  if (tracee == 0) {
    const pid_t self = getpid();
    for (;;) syscall(SYS_tgkill, self, self, SIGURG);
  }
  int status;
  if (tracee < 0 || ptrace(PTRACE_SEIZE, tracee, 0, PTRACE_O_EXITKILL) != 0 ||
      waitpid(tracee, &status, __WALL) != tracee || !WIFSTOPPED(status))
    die("a tracee");
}

static void touch(void) {
  const size_t page = (size_t)sysconf(_SC_PAGESIZE), bytes = 64 * page;
  char* memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) die("mmap");
  for (size_t i = 0; i < bytes; i += page) memory[i] = 1;
  munmap(memory, bytes);
}

int main(int argc, char** argv) {
  if (argc > 1 && strcmp(argv[1], "--empty") == 0) return 0;
  // As many areas as a small program has.
  const size_t page = (size_t)sysconf(_SC_PAGESIZE);
  for (int i = 0; i < kMappings; i++) {
    char* area = mmap(NULL, kPagesEach * page, i % 2 ? PROT_READ | PROT_WRITE : PROT_READ | PROT_WRITE | PROT_EXEC,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (area == MAP_FAILED) die("mmap");
    memset(area, 1, kPagesEach * page);
  }
  printf("yardsticks of this machine, medians:\n");
  measure("a system call", call);
  measure("open, read and close a file of /proc", read_proc);
  measure("make a thread and wait for its end", thread);
  measure("fork a small process and wait for its end", fork_and_wait);
  measure("fork, exec an empty program and wait for its end", fork_and_exec);
  start_tracee();
  measure("continue a traced thread and wait for its next stop", next_stop);
  kill(tracee, SIGKILL);
  waitpid(tracee, NULL, __WALL);
  measure("touch 64 fresh pages, map and unmap them", touch);
  return 0;
}
