// A process whose main thread has ended while others go on; one of them has a child, with a parent-death signal of its
// own. When the last one ends as a thread, the parent sees its status (before Linux 6.2: that of the main thread).
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "start_thread.h"
#include "subject.h"

enum { kThreads = 3, kStatus = 42 };
struct shared {
  pid_t tids[kThreads];
  int beats[kThreads], stop;
  pid_t grandchild;
};
static struct shared* shared;
static timer_t timer;

static void* beat(void* argument) {
  const int index = (int)(intptr_t)argument;
  __atomic_store_n(&shared->tids[index], (pid_t)syscall(SYS_gettid), __ATOMIC_RELEASE);
  if (index == 1) {
    const pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) REQUIRE(prctl(PR_SET_PDEATHSIG, SIGTERM) == 0);
    while (pid == 0) pause();
    __atomic_store_n(&shared->grandchild, pid, __ATOMIC_RELEASE);
  }
  while (!__atomic_load_n(&shared->stop, __ATOMIC_ACQUIRE)) {
    sleep_ms(1);
    __atomic_add_fetch(&shared->beats[index], 1, __ATOMIC_ACQ_REL);
  }
  if (index == 1) kill(shared->grandchild, SIGKILL), waitpid(shared->grandchild, NULL, 0);
  syscall(SYS_exit, kStatus);
  return NULL;
}

static pid_t start_child(void) {
  const pid_t pid = fork();
  REQUIRE(pid >= 0);
  if (pid != 0) return pid;
  REQUIRE(prctl(PR_SET_NAME, "leaderless") == 0);
  for (int i = 0; i < kThreads; i++) {
    pthread_t thread;
    start_thread(&thread, beat, (void*)(intptr_t)i);
  }
  syscall(SYS_exit, kStatus);
  return 0;
}

static char state_of(pid_t pid) {
  char path[64], text[512];
  snprintf(path, sizeof path, "/proc/%d/task/%d/stat", pid, pid);
  if (subject_read_file(path, text, sizeof text) <= 0) return '?';
  const char* end = strrchr(text, ')');
  const char* status = strrchr(text, ' ');
  CHECK(status != NULL && (end[2] != 'Z' || atoi(status) == kStatus << 8), "its main thread: %s", text);
  return end != NULL && strstr(text, "(leaderless)") != NULL ? end[2] : '?';
}

static void check_child(pid_t child) {
  siginfo_t info = {0};
  CHECK(state_of(child) == 'Z', "state of its main thread: %c", state_of(child));
  CHECK(waitid(P_PID, (id_t)child, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == 0, "it can be waited for");
  for (int i = 0; i < kThreads; i++) {
    const int before = __atomic_load_n(&shared->beats[i], __ATOMIC_ACQUIRE);
    CHECK(WAIT_UNTIL(__atomic_load_n(&shared->beats[i], __ATOMIC_ACQUIRE) > before + 2), "thread %d stands still", i);
    CHECK(syscall(SYS_tgkill, child, shared->tids[i], 0) == 0, "thread %d is gone", i);
  }
  CHECK(kill(shared->grandchild, 0) == 0, "the grandchild is gone");
}

static void end_child(pid_t child) {
  int status = 0;
  __atomic_store_n(&shared->stop, 1, __ATOMIC_RELEASE);
  pid_t ended = 0;
  CHECK(WAIT_UNTIL(ended == child || (ended = waitpid(child, &status, WNOHANG)) == child), "the child does not end");
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == kStatus, "it ended with %#x", (unsigned)status);
}

// The main thread of the root, too.
static void* live_on(void* argument) {
  const pid_t child = (pid_t)(intptr_t)argument, self = getpid();
  char path[64], text[512];
  snprintf(path, sizeof path, "/proc/%d/task/%d/stat", self, self);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  sigprocmask(SIG_BLOCK, &set, NULL);
  struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
  const struct itimerspec soon = {.it_value = {0, 1000000}}, later = {.it_value = {5000, 0}};
  REQUIRE(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0 && timer_settime(timer, 0, &later, NULL) == 0);
  REQUIRE(WAIT_UNTIL(subject_read_file(path, text, sizeof text) > 0 && strstr(text, ") Z ") != NULL));
  REQUIRE(WAIT_UNTIL(state_of(child) == 'Z' && __atomic_load_n(&shared->grandchild, __ATOMIC_ACQUIRE) != 0));
  for (subject_ready(); subject_next(); subject_verdict()) {
    siginfo_t info;
    const struct timespec patience = {5, 0};
    CHECK(subject_read_file(path, text, sizeof text) > 0 && strstr(text, ") Z ") != NULL, "the main thread: %s", text);
    struct itimerspec left = {0};
    CHECK(timer_gettime(timer, &left) == 0 && left.it_value.tv_sec > 4000, "the timer has %ld s", left.it_value.tv_sec);
    CHECK(timer_settime(timer, 0, &soon, NULL) == 0 && sigtimedwait(&set, &info, &patience) == SIGUSR1, "the timer");
    CHECK(timer_settime(timer, 0, &later, NULL) == 0, "the timer");
    check_child(child);
    if (subject_last) end_child(child);
  }
  exit(subject_status());
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  shared = mmap(NULL, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  REQUIRE(shared != MAP_FAILED);
  const pid_t child = start_child();
  pthread_t thread;
  REQUIRE(pthread_create(&thread, NULL, live_on, (void*)(intptr_t)child) == 0);
  pthread_exit(NULL);
}
