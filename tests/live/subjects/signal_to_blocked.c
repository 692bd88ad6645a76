// Threads of a stopped process, each in a call that waits, and a signal with a handler pending for each: when the
// process goes on, the handlers run, and pause, sigsuspend, sigwaitinfo and read return EINTR, but a read that
// SA_RESTART applies to does not. The checkpoint comes between the signal and its handler.
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "subject.h"

enum { kPause, kSuspend, kWait, kRead, kReadAgain, kWaiters };
static struct {
  volatile pid_t tid[kWaiters];
  volatile int handled[kWaiters], begun[kWaiters], error[kWaiters];
}* shared;
static int pipe_ends[2];
static __thread int self;

static void on_signal(int number) {
  (void)number;
  shared->handled[self]++;
}

static int wait_once(void) {
  sigset_t set;
  siginfo_t info;
  char byte;
  sigemptyset(&set);
  switch (self) {
    case kPause:
      return pause() < 0 ? errno : 0;
    case kSuspend:
      return sigsuspend(&set) < 0 ? errno : 0;
    case kWait:
      sigaddset(&set, SIGRTMIN + 9);
      return sigwaitinfo(&set, &info) < 0 ? errno : 0;
    default:
      return read(pipe_ends[0], &byte, 1) < 0 ? errno : 0;
  }
}

static void* waiting(void* argument) {
  self = (int)(intptr_t)argument;
  shared->tid[self] = (pid_t)syscall(SYS_gettid);
  for (;;) {
    shared->begun[self]++;
    shared->error[self] = wait_once();
  }
  return NULL;
}

static void run_waiters(void) {
  struct sigaction plain = {.sa_handler = on_signal}, again = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
  REQUIRE(sigaction(SIGUSR1, &plain, NULL) == 0 && sigaction(SIGUSR2, &again, NULL) == 0);
  pthread_t thread;
  for (int i = 0; i < kWaiters; i++) REQUIRE(pthread_create(&thread, NULL, waiting, (void*)(intptr_t)i) == 0);
  for (;;) sleep_ms(1000);
}

static char state_of(pid_t pid) {
  char path[64], text[512];
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  if (subject_read_file(path, text, sizeof text) <= 0) return '?';
  const char* end = strrchr(text, ')');
  return end != NULL ? end[2] : '?';
}

static void stop_with_signals(pid_t child) {
  sleep_ms(30);
  kill(child, SIGSTOP);
  CHECK(WAIT_UNTIL(state_of(child) == 'T'), "the child does not stop");
  for (int i = 0; i < kWaiters; i++) syscall(SYS_tgkill, child, shared->tid[i], i == kReadAgain ? SIGUSR2 : SIGUSR1);
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  REQUIRE(shared != MAP_FAILED && pipe(pipe_ends) == 0);
  pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) run_waiters();
  for (int i = 0; i < kWaiters; i++) REQUIRE(WAIT_UNTIL(shared->begun[i] == 1));
  stop_with_signals(child);

  int round = 0;
  for (subject_ready(); subject_next(); subject_verdict()) {
    for (int i = 0; i < kWaiters; i++) CHECK(shared->handled[i] == round, "a handler of the stopped process has run");
    kill(child, SIGCONT);
    round++;
    for (int i = 0; i < kWaiters; i++) {
      CHECK(WAIT_UNTIL(shared->handled[i] == round), "the handler of waiter %d does not run", i);
      if (i == kReadAgain) continue;
      CHECK(WAIT_UNTIL(shared->begun[i] == round + 1) && shared->error[i] == EINTR, "waiter %d: %d, error %d", i,
            shared->begun[i], shared->error[i]);
    }
    sleep_ms(30);
    CHECK(shared->begun[kReadAgain] == 1, "the read with SA_RESTART came back with %d", shared->error[kReadAgain]);
    stop_with_signals(child);
    if (subject_last) kill(child, SIGKILL), waitpid(child, NULL, 0);
  }
  return subject_status();
}
