// The three classic interval timers: interval and remaining time, and that they fire afterwards.
#include <signal.h>
#include <sys/time.h>

#include "subject.h"

static const struct {
  int which;
  clockid_t clock;
  const char* name;
} kTimers[] = {{ITIMER_REAL, CLOCK_MONOTONIC, "real"},
               {ITIMER_VIRTUAL, CLOCK_PROCESS_CPUTIME_ID, "virtual"},
               {ITIMER_PROF, CLOCK_PROCESS_CPUTIME_ID, "profiling"}};
enum { kFirst_s = 40, kInterval_s = 7 };
static volatile int alarms;
static void on_alarm(int number) {
  alarms += number == SIGALRM;
}

static double left_s(int which, double* interval_s) {
  struct itimerval now;
  getitimer(which, &now);
  *interval_s = (double)now.it_interval.tv_sec + (double)now.it_interval.tv_usec * 1e-6;
  return (double)now.it_value.tv_sec + (double)now.it_value.tv_usec * 1e-6;
}

static void arm(int i, double* armed_at) {
  struct itimerval value = {{kInterval_s, 250000}, {kFirst_s + i, 0}};
  REQUIRE(setitimer(kTimers[i].which, &value, NULL) == 0);
  armed_at[i] = clock_s(kTimers[i].clock);
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  struct sigaction action = {.sa_handler = on_alarm};
  REQUIRE(sigaction(SIGALRM, &action, NULL) == 0);
  double armed_at[3];
  for (int i = 0; i < 3; i++) arm(i, armed_at);

  for (subject_ready(); subject_next(); subject_verdict()) {
    for (int i = 0; i < 3; i++) {
      double interval_s, left = left_s(kTimers[i].which, &interval_s);
      double used = kFirst_s + i - left, passed = clock_s(kTimers[i].clock) - armed_at[i];
      CHECK(interval_s > kInterval_s + 0.249 && interval_s < kInterval_s + 0.251, "%s: interval %.3f s",
            kTimers[i].name, interval_s);
      // CPU time starts again at zero in a restored task, so only the remaining time itself can be compared there.
      double most = i == 0 ? passed + 0.3 : 2.0;
      CHECK(used > -0.01 && used < most, "%s: %.3f s are left of %d s after %.3f s", kTimers[i].name, left,
            kFirst_s + i, passed);
    }
    CHECK(alarms == 0, "the real timer went off early");
    struct itimerval soon = {{0, 0}, {0, 20000}};
    setitimer(ITIMER_REAL, &soon, NULL);
    CHECK(WAIT_UNTIL(alarms == 1), "the real timer does not go off");
    alarms = 0;
    arm(0, armed_at);
  }
  return subject_status();
}
