// More spinning threads than processors: they make no system call, so they must be stopped at any instruction.
#include <pthread.h>

#include "subject.h"

enum { kThreads = 8 };
static volatile uint64_t counts[kThreads][8];
static volatile uint64_t sums[kThreads][8];

// sum is a function of count at every turn, so a lost or repeated instruction shows.
static void* spin(void* argument) {
  uint64_t index = (uint64_t)(uintptr_t)argument, count = 0, sum = index;
  for (;;) {
    count++;
    sum += count;
    counts[index][0] = count;
    sums[index][0] = sum - count * (count + 1) / 2;
  }
  return NULL;
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  for (uintptr_t i = 0; i < kThreads; i++) {
    pthread_t thread;
    REQUIRE(pthread_create(&thread, NULL, spin, (void*)i) == 0);
    REQUIRE(WAIT_UNTIL(counts[i][0] > 0));
  }
  for (subject_ready(); subject_next(); subject_verdict()) {
    for (uint64_t i = 0; i < kThreads; i++) {
      uint64_t seen = counts[i][0];
      CHECK(WAIT_UNTIL(counts[i][0] > seen), "thread %lu stands still", (unsigned long)i);
      CHECK(sums[i][0] == i, "thread %lu miscounted by %ld", (unsigned long)i, (long)(sums[i][0] - i));
    }
  }
  return subject_status();
}
