// A timer of the CPU time of a thread: the kernel does not tell of which.
#include <signal.h>

#include "subject.h"

int main(int argc, char** argv) {
  subject_start(argc, argv);
  struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
  timer_t timer;
  REQUIRE(timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &timer) == 0);
  struct itimerspec later = {{0, 0}, {100, 0}};
  REQUIRE(timer_settime(timer, 0, &later, NULL) == 0);
  for (subject_ready(); subject_next(); subject_verdict()) {
    struct itimerspec left;
    CHECK(timer_gettime(timer, &left) == 0 && left.it_value.tv_sec > 90, "remaining time");
  }
  return subject_status();
}
