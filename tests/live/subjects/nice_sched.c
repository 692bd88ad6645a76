// Scheduling: nice values, policies and priorities of threads, reset-on-fork.
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "subject.h"

enum { kThreads = 5 };
static const struct {
  int policy, priority, nice;
} kWanted[kThreads] = {{SCHED_OTHER, 0, 7},
                       {SCHED_BATCH, 0, 3},
                       {SCHED_IDLE, 0, 0},
                       {SCHED_FIFO, 11, 0},
                       {SCHED_RR | SCHED_RESET_ON_FORK, 22, 0}};

struct state {
  int index;
  pid_t tid;
  bool refused;
};
static struct state states[kThreads];

static void* work(void* argument) {
  struct state* state = argument;
  struct sched_param parameter = {kWanted[state->index].priority};
  pid_t tid = (pid_t)syscall(SYS_gettid);
  setpriority(PRIO_PROCESS, (id_t)tid, kWanted[state->index].nice);
  state->refused = sched_setscheduler(0, kWanted[state->index].policy, &parameter) != 0;
  __atomic_store_n(&state->tid, tid, __ATOMIC_RELEASE);
  for (;;) sleep_ms(1000);
  return argument;
}

static void check_thread(const struct state* state) {
  int i = state->index;
  struct sched_param parameter;
  if (!state->refused) {
    CHECK(sched_getscheduler(state->tid) == kWanted[i].policy, "thread %d: policy %d", i,
          sched_getscheduler(state->tid));
    CHECK(sched_getparam(state->tid, &parameter) == 0 && parameter.sched_priority == kWanted[i].priority,
          "thread %d: priority", i);
  }
  errno = 0;
  CHECK(getpriority(PRIO_PROCESS, (id_t)state->tid) == kWanted[i].nice && errno == 0, "thread %d: nice value", i);
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  for (int i = 0; i < kThreads; i++) {
    pthread_t thread;
    states[i].index = i;
    REQUIRE(pthread_create(&thread, NULL, work, &states[i]) == 0);
    REQUIRE(WAIT_UNTIL(__atomic_load_n(&states[i].tid, __ATOMIC_ACQUIRE) != 0));
  }
  REQUIRE(setpriority(PRIO_PROCESS, 0, 5) == 0);
  for (subject_ready(); subject_next(); subject_verdict()) {
    CHECK(getpriority(PRIO_PROCESS, 0) == 5, "the leader's nice value is %d", getpriority(PRIO_PROCESS, 0));
    for (int i = 0; i < kThreads; i++) check_thread(&states[i]);
  }
  return subject_status();
}
