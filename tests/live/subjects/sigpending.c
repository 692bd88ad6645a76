// Queued signals: of the process and of each thread, several with one number in their order, with code and value.
// They stay queued over the checkpoint; a check takes them out, compares, and queues them again.
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>

#include "subject.h"

enum { kQueued = 40, kSelfQueued = 3 };

static void block_all(void) {
  sigset_t all;
  sigfillset(&all);
  REQUIRE(pthread_sigmask(SIG_SETMASK, &all, NULL) == 0);
}

// A code that no library function uses: the queue must keep it as it is.
static void queue_with_code(int signal_number, int code, int value) {
  siginfo_t info = {.si_signo = signal_number, .si_code = code};
  info.si_pid = getpid();
  info.si_uid = 4242;
  info.si_value.sival_int = value;
  REQUIRE(syscall(SYS_rt_sigqueueinfo, getpid(), signal_number, &info) == 0);
}

static void queue_for_thread(int signal_number, int value) {
  siginfo_t info = {.si_signo = signal_number, .si_code = SI_QUEUE};
  info.si_pid = getpid();
  info.si_value.sival_int = value;
  REQUIRE(syscall(SYS_rt_tgsigqueueinfo, getpid(), syscall(SYS_gettid), signal_number, &info) == 0);
}

static bool take(int signal_number, siginfo_t* info) {
  sigset_t one;
  sigemptyset(&one);
  sigaddset(&one, signal_number);
  static const struct timespec kNow = {0, 0};
  return sigtimedwait(&one, info, &kNow) == signal_number;
}

static void queue_shared(void) {
  for (int i = 0; i < kQueued; i++) {
    union sigval value = {.sival_int = 1000 + i};
    REQUIRE(sigqueue(getpid(), SIGRTMIN + 2 + i % 2, value) == 0);
  }
  queue_with_code(SIGRTMIN + 9, -77, 31337);
  REQUIRE(kill(getpid(), SIGUSR1) == 0 && kill(getpid(), SIGTERM) == 0);
}

static void check_shared(void) {
  siginfo_t info;
  for (int parity = 0; parity < 2; parity++)
    for (int i = parity; i < kQueued; i += 2) {
      CHECK(take(SIGRTMIN + 2 + parity, &info), "queued signal %d is missing", i);
      CHECK(info.si_code == SI_QUEUE && info.si_value.sival_int == 1000 + i && info.si_pid == getpid(),
            "queued signal %d: code %d, value %d", i, info.si_code, info.si_value.sival_int);
    }
  CHECK(!take(SIGRTMIN + 2, &info) && !take(SIGRTMIN + 3, &info), "more signals than were queued");
  CHECK(take(SIGRTMIN + 9, &info) && info.si_code == -77 && info.si_uid == 4242 && info.si_value.sival_int == 31337,
        "a signal with a code of its own");
  CHECK(take(SIGUSR1, &info) && info.si_code == SI_USER && info.si_pid == getpid(), "SIGUSR1");
  CHECK(take(SIGTERM, &info) && !take(SIGTERM, &info), "SIGTERM");
  CHECK(!take(SIGCHLD, &info) && !take(SIGURG, &info) && !take(SIGWINCH, &info) && !take(SIGCONT, &info),
        "signal %d was left by the checkpoint", info.si_signo);
}

struct worker {
  pthread_t thread;
  int index;
  volatile int checked;
  const char* volatile failure;
};
static struct worker workers[3];
static volatile int request;

static void queue_own(const struct worker* worker) {
  for (int i = 0; i < kSelfQueued; i++) queue_for_thread(SIGRTMIN + 15, worker->index * 10 + i);
}

static void* work(void* argument) {
  struct worker* worker = argument;
  queue_own(worker);
  worker->checked = -1;
  for (int seen = 0;; sleep_ms(kPollMs)) {
    if (request == seen) continue;
    seen = request;
    siginfo_t info;
    for (int i = 0; i < kSelfQueued; i++)
      if (!take(SIGRTMIN + 15, &info) || info.si_value.sival_int != worker->index * 10 + i)
        worker->failure = "a signal queued for a thread";
    if (take(SIGRTMIN + 15, &info)) worker->failure = "more signals than were queued for a thread";
    queue_own(worker);
    worker->checked = seen;
  }
  return argument;
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  block_all();
  for (int i = 0; i < 3; i++) {
    workers[i].index = i;
    REQUIRE(pthread_create(&workers[i].thread, NULL, work, &workers[i]) == 0);
    REQUIRE(WAIT_UNTIL(workers[i].checked == -1));
  }
  queue_shared();
  queue_for_thread(SIGRTMIN + 14, 99);

  for (subject_ready(); subject_next(); subject_verdict()) {
    siginfo_t info;
    CHECK(take(SIGRTMIN + 14, &info) && info.si_value.sival_int == 99, "a signal queued for the leader alone");
    check_shared();
    request = subject_generation;
    for (int i = 0; i < 3; i++) {
      CHECK(WAIT_UNTIL(workers[i].checked == subject_generation), "thread %d does not answer", i);
      CHECK(workers[i].failure == NULL, "thread %d: %s", i, workers[i].failure);
    }
    queue_shared();
    queue_for_thread(SIGRTMIN + 14, 99);
  }
  return subject_status();
}
