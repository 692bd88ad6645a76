// Sleeping calls with a limit: the total time is right, and none comes back early or with EINTR. Each thread
// sleeps again for every generation; the checkpoint falls into the sleep.
#include <poll.h>
#include <semaphore.h>

#include "start_thread.h"
#include "subject.h"

enum { kSleepMs = 2500, kToleranceMs = 900, kKinds = 5 };
static const double kSleep_s = kSleepMs / 1000.0;

static sem_t semaphore, start[kKinds];
static volatile int done[kKinds];
static volatile int result[kKinds];  // errno, 0 for a sleep that ran to its end
static volatile double took_s[kKinds];

static struct timespec after(clockid_t clock) {
  struct timespec at;
  clock_gettime(clock, &at);
  at.tv_sec += kSleepMs / 1000;
  at.tv_nsec += kSleepMs % 1000 * 1000000l;
  if (at.tv_nsec >= 1000000000l) at.tv_sec++, at.tv_nsec -= 1000000000l;
  return at;
}

static const char* const kNames[kKinds] = {"nanosleep with rem", "clock_nanosleep, absolute", "sem_timedwait", "poll",
                                           "clock_nanosleep, relative, no rem"};
static clockid_t measured_by(int kind) {
  return kind == 2 ? CLOCK_REALTIME : CLOCK_MONOTONIC;
}

static int sleep_once(int kind) {
  struct timespec amount = {kSleepMs / 1000, kSleepMs % 1000 * 1000000l}, left, at;
  switch (kind) {
    case 0:
      return nanosleep(&amount, &left) == 0 ? 0 : errno;
    case 1:
      at = after(CLOCK_MONOTONIC);
      return clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
    case 2:
      at = after(CLOCK_REALTIME);
      return sem_timedwait(&semaphore, &at) != 0 && errno == ETIMEDOUT ? 0 : errno;
    case 3:
      return poll(NULL, 0, kSleepMs) == 0 ? 0 : errno;
    default:
      return clock_nanosleep(CLOCK_MONOTONIC, 0, &amount, NULL);
  }
}

static void* sleeper(void* argument) {
  int kind = *(int*)argument;
  for (;;) {
    while (sem_trywait(&start[kind]) != 0) sleep_ms(1);
    double begun_s = clock_s(measured_by(kind));
    int got = sleep_once(kind);
    took_s[kind] = clock_s(measured_by(kind)) - begun_s;
    result[kind] = got;
    done[kind]++;
  }
  return NULL;
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  static int kinds[kKinds];
  sem_init(&semaphore, 0, 0);
  for (int i = 0; i < kKinds; i++) {
    kinds[i] = i;
    sem_init(&start[i], 0, 1);
    pthread_t thread;
    start_thread(&thread, sleeper, &kinds[i]);
  }
  sleep_ms(100);

  int round = 0;
  for (subject_ready(); subject_next(); subject_verdict()) {
    round++;
    for (int i = 0; i < kKinds; i++) {
      CHECK(WAIT_UNTIL(done[i] == round), "%s does not end", kNames[i]);
      CHECK(result[i] == 0, "%s: error %d", kNames[i], result[i]);
      CHECK(took_s[i] > kSleep_s - 0.01, "%s took only %.3f s", kNames[i], took_s[i]);
      CHECK(took_s[i] < kSleep_s + kToleranceMs / 1000.0, "%s took %.3f s", kNames[i], took_s[i]);
    }
    for (int i = 0; i < kKinds; i++) sem_post(&start[i]);
    sleep_ms(50);
  }
  return subject_status();
}
