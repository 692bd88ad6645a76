// What a thread has besides its scheduling: I/O priority, timer slack, NUMA policy, machine check policy, I/O flusher
// mark, faulting time stamp counter, speculation control, time slice. Of three threads one has all of it, one has
// other values, and the leader has none.
#include <linux/mempolicy.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "subject.h"

enum { kWorkers = 2, kProcess = 1, kBestEffort3 = 2 << 13 | 3, kIdle = 3 << 13 };

struct attributes {
  int io_priority, slack_ns, machine_check, flusher, tsc, store_bypass;
  int numa_mode;
  unsigned long nodes;
  uint64_t slice_ns;
};
struct sched_attributes {
  uint32_t size, policy;
  uint64_t flags;
  int32_t nice;
  uint32_t priority;
  uint64_t runtime, deadline, period;
  uint32_t util_min, util_max;
};

static struct attributes wanted[kWorkers + 1];  // the leader last
static struct worker {
  pthread_t thread;
  int asked, answered;
} workers[kWorkers];

static struct attributes read_attributes(void) {
  struct attributes out = {0};
  unsigned long nodes[16] = {0};
  struct sched_attributes scheduling = {0};
  out.io_priority = (int)syscall(SYS_ioprio_get, kProcess, 0);
  out.slack_ns = prctl(PR_GET_TIMERSLACK);
  out.machine_check = prctl(PR_MCE_KILL_GET, 0, 0, 0, 0);
  out.flusher = prctl(PR_GET_IO_FLUSHER, 0, 0, 0, 0);
  prctl(PR_GET_TSC, &out.tsc);
  out.store_bypass = prctl(PR_GET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS, 0, 0, 0);
  if (syscall(SYS_get_mempolicy, &out.numa_mode, nodes, sizeof nodes * 8, 0, 0) == 0) out.nodes = nodes[0];
  if (syscall(SYS_sched_getattr, 0, &scheduling, sizeof scheduling, 0) == 0) out.slice_ns = scheduling.runtime;
  return out;
}

static void check_attributes(const char* who, struct attributes want) {
  struct attributes now = read_attributes();
  CHECK(now.io_priority == want.io_priority, "%s: I/O priority %#x, not %#x", who, now.io_priority, want.io_priority);
  CHECK(now.slack_ns == want.slack_ns, "%s: timer slack %d, not %d", who, now.slack_ns, want.slack_ns);
  CHECK(now.machine_check == want.machine_check, "%s: machine check policy %d, not %d", who, now.machine_check,
        want.machine_check);
  CHECK(now.flusher == want.flusher, "%s: I/O flusher %d, not %d", who, now.flusher, want.flusher);
  CHECK(now.tsc == want.tsc, "%s: time stamp counter %d, not %d", who, now.tsc, want.tsc);
  CHECK(now.store_bypass == want.store_bypass, "%s: store bypass %#x, not %#x", who, (unsigned)now.store_bypass,
        (unsigned)want.store_bypass);
  CHECK(now.numa_mode == want.numa_mode && now.nodes == want.nodes, "%s: NUMA policy %#x nodes %#lx, not %#x %#lx", who,
        (unsigned)now.numa_mode, now.nodes, (unsigned)want.numa_mode, want.nodes);
  CHECK(now.slice_ns == want.slice_ns, "%s: time slice %llu, not %llu", who, (unsigned long long)now.slice_ns,
        (unsigned long long)want.slice_ns);
}

static void set_numa(int mode) {
  unsigned long node = 1;
  syscall(SYS_set_mempolicy, mode, &node, 65ul);  // without NUMA it stays as it is
}

static void set_slice(uint64_t ns) {
  struct sched_attributes scheduling = {.size = sizeof scheduling, .runtime = ns};
  REQUIRE(syscall(SYS_sched_setattr, 0, &scheduling, 0) == 0);  // before 6.12 it stays as it is
}

static void set_first(void) {
  REQUIRE(syscall(SYS_ioprio_set, kProcess, 0, kBestEffort3) == 0);
  REQUIRE(prctl(PR_SET_TIMERSLACK, 1234567) == 0);
  REQUIRE(prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0) == 0);
  prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
  REQUIRE(prctl(PR_SET_TSC, PR_TSC_SIGSEGV) == 0);
  prctl(PR_SET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS, PR_SPEC_DISABLE, 0, 0);
  set_numa(MPOL_INTERLEAVE | MPOL_F_STATIC_NODES);
  set_slice(7000000);
}

static void set_second(void) {
  REQUIRE(syscall(SYS_ioprio_set, kProcess, 0, kIdle) == 0);
  REQUIRE(prctl(PR_SET_TIMERSLACK, 1) == 0);
  REQUIRE(prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_LATE, 0, 0) == 0);
  set_numa(MPOL_BIND);
}

static void* work(void* argument) {
  int index = (int)(intptr_t)argument;
  struct worker* self = &workers[index];
  index == 0 ? set_first() : set_second();
  wanted[index] = read_attributes();
  for (int done = 0;; done++) {
    __atomic_store_n(&self->answered, done, __ATOMIC_RELEASE);
    while (__atomic_load_n(&self->asked, __ATOMIC_ACQUIRE) == done) sleep_ms(1);
    check_attributes(index == 0 ? "the first thread" : "the second thread", wanted[index]);
  }
  return argument;
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  wanted[kWorkers] = read_attributes();
  for (int i = 0; i < kWorkers; i++) {
    workers[i].answered = -1;
    REQUIRE(pthread_create(&workers[i].thread, NULL, work, (void*)(intptr_t)i) == 0);
    REQUIRE(WAIT_UNTIL(__atomic_load_n(&workers[i].answered, __ATOMIC_ACQUIRE) == 0));
  }
  // It really was set, as far as every kernel can.
  REQUIRE(wanted[0].io_priority == kBestEffort3 && wanted[1].io_priority == kIdle);
  REQUIRE(wanted[0].slack_ns == 1234567 && wanted[1].slack_ns == 1 && wanted[kWorkers].slack_ns == 50000);
  REQUIRE(wanted[0].machine_check == PR_MCE_KILL_EARLY && wanted[1].machine_check == PR_MCE_KILL_LATE);
  REQUIRE(wanted[0].tsc == PR_TSC_SIGSEGV && wanted[1].tsc == PR_TSC_ENABLE);
  for (subject_ready(); subject_next(); subject_verdict()) {
    for (int i = 0; i < kWorkers; i++) {
      int asked = __atomic_add_fetch(&workers[i].asked, 1, __ATOMIC_RELEASE);
      CHECK(WAIT_UNTIL(__atomic_load_n(&workers[i].answered, __ATOMIC_ACQUIRE) == asked), "a thread gives no answer");
    }
    check_attributes("the leader", wanted[kWorkers]);
  }
  return subject_status();
}
