// POSIX timers with a gap in their ids.
#include <signal.h>

#include "subject.h"

int main(int argc, char** argv) {
  subject_start(argc, argv);
  timer_t timers[3];
  for (int i = 0; i < 3; i++) {
    struct sigevent event = {
        .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + i, .sigev_value = {.sival_int = 40 + i}};
    REQUIRE(timer_create(CLOCK_MONOTONIC, &event, &timers[i]) == 0);
  }
  timer_delete(timers[1]);
  sigset_t mask;
  sigfillset(&mask);
  REQUIRE(sigprocmask(SIG_SETMASK, &mask, NULL) == 0);
  struct itimerspec later = {{9, 0}, {100, 0}};
  REQUIRE(timer_settime(timers[2], 0, &later, NULL) == 0);
  for (subject_ready(); subject_next(); subject_verdict()) {
    struct itimerspec left;
    CHECK(timer_gettime(timers[2], &left) == 0 && left.it_interval.tv_sec == 9 && left.it_value.tv_sec > 80,
          "remaining time");
    struct itimerspec soon = {{0, 0}, {0, 1000000}};
    CHECK(timer_settime(timers[0], 0, &soon, NULL) == 0, "arming");
    siginfo_t info;
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, SIGRTMIN);
    struct timespec patience = {5, 0};
    CHECK(sigtimedwait(&one, &info, &patience) == SIGRTMIN && info.si_value.sival_int == 40 && info.si_code == SI_TIMER,
          "expiry");
  }
  return subject_status();
}
