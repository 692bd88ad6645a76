// More signals queued, and more timers made, than the limit of pending signals allows by now.
#include <signal.h>
#include <sys/resource.h>

#include "subject.h"

enum { kQueued = 70, kLimit = 5 };

static bool take(int number, siginfo_t* info) {
  sigset_t one;
  sigemptyset(&one);
  sigaddset(&one, number);
  static const struct timespec kNow = {0, 0};
  return sigtimedwait(&one, info, &kNow) == number;
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  sigset_t mask;
  sigfillset(&mask);
  REQUIRE(sigprocmask(SIG_SETMASK, &mask, NULL) == 0);
  for (int i = 0; i < kQueued; i++) REQUIRE(sigqueue(getpid(), SIGRTMIN + 4, (union sigval){.sival_int = i}) == 0);
  timer_t timers[kLimit + 2];
  struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 5};
  for (int i = 0; i < kLimit + 2; i++) REQUIRE(timer_create(CLOCK_MONOTONIC, &event, &timers[i]) == 0);
  const struct rlimit low = {kLimit, kLimit + 1};
  REQUIRE(setrlimit(RLIMIT_SIGPENDING, &low) == 0);

  // The queue cannot be filled again: only the last check takes it apart.
  for (subject_ready(); subject_next(); subject_verdict()) {
    struct rlimit now;
    CHECK(getrlimit(RLIMIT_SIGPENDING, &now) == 0 && now.rlim_cur == kLimit && now.rlim_max == kLimit + 1,
          "the limit is %lu, %lu", (unsigned long)now.rlim_cur, (unsigned long)now.rlim_max);
    struct itimerspec left;
    for (int i = 0; i < kLimit + 2; i++) CHECK(timer_gettime(timers[i], &left) == 0, "timer %d", i);
    siginfo_t info;
    for (int i = 0; subject_last && i < kQueued; i++)
      CHECK(take(SIGRTMIN + 4, &info) && info.si_value.sival_int == i, "entry %d of the queue", i);
    CHECK(!subject_last || !take(SIGRTMIN + 4, &info), "too many entries");
  }
  return subject_status();
}
