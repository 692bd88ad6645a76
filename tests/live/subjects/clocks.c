// The monotonic and the boot clock neither go back nor jump over the time in which the program was an image.
// A ticker thread sleeps 10 ms at a time and keeps the largest step it saw; the driver waits 2 s in between.
#include <pthread.h>

#include "subject.h"

static const clockid_t kClocks[] = {CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_MONOTONIC_RAW};
enum { kCount = 3 };
static volatile double largest_step_s[kCount];
static volatile double smallest_step_s[kCount];
static const double kLargestAllowed_s = 1.5;

static void* tick(void* unused) {
  double last[kCount];
  for (int i = 0; i < kCount; i++) last[i] = clock_s(kClocks[i]);
  for (;;) {
    sleep_ms(10);
    for (int i = 0; i < kCount; i++) {
      double now = clock_s(kClocks[i]), step = now - last[i];
      if (step > largest_step_s[i]) largest_step_s[i] = step;
      if (step < smallest_step_s[i]) smallest_step_s[i] = step;
      last[i] = now;
    }
  }
  return unused;
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  pthread_t thread;
  REQUIRE(pthread_create(&thread, NULL, tick, NULL) == 0);
  sleep_ms(50);
  for (subject_ready(); subject_next(); subject_verdict()) {
    sleep_ms(50);
    for (int i = 0; i < kCount; i++) {
      CHECK(smallest_step_s[i] >= 0, "clock %d went back by %.6f s", kClocks[i], -smallest_step_s[i]);
      CHECK(largest_step_s[i] < kLargestAllowed_s, "clock %d jumped by %.3f s", kClocks[i], largest_step_s[i]);
    }
  }
  return subject_status();
}
