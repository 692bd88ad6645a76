// A thread of SCHED_DEADLINE with its runtime, deadline, period and flags.
#include <pthread.h>
#include <sys/syscall.h>

#include "subject.h"

struct attributes {
  uint32_t size, policy;
  uint64_t flags;
  int32_t nice;
  uint32_t priority;
  uint64_t runtime, deadline, period;
};
enum { kDeadline = 6, kReclaim = 2 };
static const struct attributes kWanted = {.size = sizeof kWanted,
                                          .policy = kDeadline,
                                          .flags = kReclaim,
                                          .runtime = 2000000,
                                          .deadline = 40000000,
                                          .period = 50000000};
static pid_t worker;
static int refused;
static long beats;

static void* work(void* argument) {
  refused = syscall(SYS_sched_setattr, 0, &kWanted, 0) != 0 ? errno : 0;
  __atomic_store_n(&worker, (pid_t)syscall(SYS_gettid), __ATOMIC_RELEASE);
  for (;; __atomic_add_fetch(&beats, 1, __ATOMIC_RELAXED)) sleep_ms(5);
  return argument;
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  pthread_t thread;
  REQUIRE(pthread_create(&thread, NULL, work, NULL) == 0);
  REQUIRE(WAIT_UNTIL(__atomic_load_n(&worker, __ATOMIC_ACQUIRE) != 0));
  if (refused != 0) subject_skip("SCHED_DEADLINE for this user");
  for (subject_ready(); subject_next(); subject_verdict()) {
    struct attributes now = {0};
    CHECK(syscall(SYS_sched_getattr, worker, &now, sizeof now, 0) == 0 && now.policy == kDeadline, "policy %u", now.policy);
    CHECK(now.runtime == kWanted.runtime && now.deadline == kWanted.deadline && now.period == kWanted.period,
          "parameters %llu %llu %llu", (unsigned long long)now.runtime, (unsigned long long)now.deadline,
          (unsigned long long)now.period);
    CHECK((now.flags & kReclaim) != 0, "flags %#llx", (unsigned long long)now.flags);
    long before = __atomic_load_n(&beats, __ATOMIC_RELAXED);
    CHECK(WAIT_UNTIL(__atomic_load_n(&beats, __ATOMIC_RELAXED) > before), "the thread does not run");
  }
  return subject_status();
}
