// Two processes, not threads of one, that have their memory and their signal handlers in common.
#include <sched.h>
#include <signal.h>

#include "subject.h"

enum { kStackBytes = 65536 };
static char stack[kStackBytes] __attribute__((aligned(16)));
static volatile unsigned long beats;
static volatile int stop;

// The C library knows nothing of this thread of control: it makes calls without errno, locks and buffers only.
static int beat(void* unused) {
  (void)unused;
  const struct timespec nap = {0, 1000000};
  while (!stop) {
    beats++;
    clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL);
  }
  return 0;
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  const pid_t child = clone(beat, stack + kStackBytes, CLONE_VM | CLONE_SIGHAND | SIGCHLD, NULL);
  REQUIRE(child > 0 && WAIT_UNTIL(beats > 3));
  for (subject_ready(); subject_next(); subject_verdict()) {
    const unsigned long seen = beats;
    CHECK(WAIT_UNTIL(beats > seen), "the child stands still");
    if (subject_last) stop = 1;
    subject_join(child);
  }
  return subject_status();
}
