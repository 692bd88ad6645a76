// Scheduling: nice values, policies and priorities of threads, reset-on-fork, processors they are bound to.
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

// Most stay where the leader may run; two are bound to the first and the last of its processors.
static cpu_set_t cpus_of_leader;
static cpu_set_t wanted_cpus(int thread) {
  cpu_set_t out = cpus_of_leader;
  if (thread > 1) return out;
  CPU_ZERO(&out);
  int first = -1, last = -1;
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
    if (!CPU_ISSET(cpu, &cpus_of_leader)) continue;
    if (first < 0) first = cpu;
    last = cpu;
  }
  CPU_SET(thread == 0 ? first : last, &out);
  return out;
}

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
  cpu_set_t cpus = wanted_cpus(state->index);
  if (state->index <= 1) REQUIRE(sched_setaffinity(0, sizeof cpus, &cpus) == 0);
  __atomic_store_n(&state->tid, tid, __ATOMIC_RELEASE);
  for (;;) sleep_ms(1000);
  return argument;
}

static void check_cpus(pid_t tid, const cpu_set_t* wanted, const char* who) {
  cpu_set_t cpus;
  CHECK(sched_getaffinity(tid, sizeof cpus, &cpus) == 0 && CPU_EQUAL(&cpus, wanted), "%s: %d processors, not %d", who,
        CPU_COUNT(&cpus), CPU_COUNT(wanted));
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
  char who[32];
  snprintf(who, sizeof who, "thread %d", i);
  cpu_set_t cpus = wanted_cpus(i);
  check_cpus(state->tid, &cpus, who);
  errno = 0;
  CHECK(getpriority(PRIO_PROCESS, (id_t)state->tid) == kWanted[i].nice && errno == 0, "thread %d: nice value", i);
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  REQUIRE(sched_getaffinity(0, sizeof cpus_of_leader, &cpus_of_leader) == 0);
  for (int i = 0; i < kThreads; i++) {
    pthread_t thread;
    states[i].index = i;
    REQUIRE(pthread_create(&thread, NULL, work, &states[i]) == 0);
    REQUIRE(WAIT_UNTIL(__atomic_load_n(&states[i].tid, __ATOMIC_ACQUIRE) != 0));
  }
  REQUIRE(setpriority(PRIO_PROCESS, 0, 5) == 0);
  for (subject_ready(); subject_next(); subject_verdict()) {
    CHECK(getpriority(PRIO_PROCESS, 0) == 5, "the leader's nice value is %d", getpriority(PRIO_PROCESS, 0));
    check_cpus(0, &cpus_of_leader, "the leader");
    for (int i = 0; i < kThreads; i++) check_thread(&states[i]);
  }
  return subject_status();
}
