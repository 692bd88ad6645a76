// Twenty threads: tid, name, TLS, blocked signals, alternate stack, robust list, rseq registration of each, and
// the word that the kernel clears when a thread ends (pthread_join waits for it).
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/rseq.h>
#include <sys/syscall.h>

#include "subject.h"

enum { kThreads = 20 };

struct state {
  pthread_t thread;
  int index;
  pid_t tid;
  void* robust_list;
  void* tls_address;
  char alternate_stack[16384];
  volatile int checked;
  char failure[200];
};
static struct state states[kThreads];
static volatile int request;
static volatile bool leave;
static _Thread_local int tls_value = 12345;

#define NOTE(condition, text)                                                                                 \
  do {                                                                                                        \
    if (!(condition) && state->failure[0] == '\0')                                                            \
      snprintf(state->failure, sizeof state->failure, "thread %d: %s (errno %d)", state->index, text, errno); \
  } while (0)

static void mask_of(int index, sigset_t* mask) {
  sigemptyset(mask);
  sigaddset(mask, SIGUSR1);
  sigaddset(mask, SIGRTMIN + index % 20);
}

static void check_thread(struct state* state) {
  NOTE(syscall(SYS_gettid) == state->tid, "another tid");
  char name[16], wanted[16];
  snprintf(wanted, sizeof wanted, "worker-%d", state->index);
  prctl(PR_GET_NAME, name);
  NOTE(strcmp(name, wanted) == 0, "another name");
  NOTE(tls_value == 1000 + state->index && &tls_value == state->tls_address, "thread-local data");
  sigset_t mask, wanted_mask;
  mask_of(state->index, &wanted_mask);
  pthread_sigmask(SIG_SETMASK, NULL, &mask);
  for (int i = 1; i < SIGRTMAX; i++) NOTE(sigismember(&mask, i) == sigismember(&wanted_mask, i), "blocked signals");
  stack_t stack;
  sigaltstack(NULL, &stack);
  bool has_stack = state->index % 3 != 0;
  NOTE(has_stack ? stack.ss_sp == state->alternate_stack && stack.ss_size == sizeof state->alternate_stack &&
                       stack.ss_flags == 0
                 : stack.ss_flags == SS_DISABLE,
       "alternate stack");
  if (__rseq_size > 0) {  // libc registered one; registering the same area again is refused with EBUSY (rseq(2))
    char* area = (char*)__builtin_thread_pointer() + __rseq_offset;
    unsigned length = __rseq_size < 32 ? 32 : __rseq_size;
    NOTE(syscall(SYS_rseq, area, length, 0, RSEQ_SIG) == -1 && errno == EBUSY, "rseq is not registered");
    NOTE(((struct rseq*)(void*)area)->cpu_id < 65536, "rseq cpu id");
  }
}

static void* work(void* argument) {
  struct state* state = argument;
  char name[16];
  snprintf(name, sizeof name, "worker-%d", state->index);
  prctl(PR_SET_NAME, name);
  tls_value = 1000 + state->index;
  state->tls_address = &tls_value;
  sigset_t mask;
  mask_of(state->index, &mask);
  pthread_sigmask(SIG_SETMASK, &mask, NULL);
  stack_t stack = {.ss_sp = state->alternate_stack, .ss_size = sizeof state->alternate_stack};
  if (state->index % 3 != 0) sigaltstack(&stack, NULL);
  state->tid = (pid_t)syscall(SYS_gettid);
  size_t length;
  syscall(SYS_get_robust_list, 0, &state->robust_list, &length);
  state->checked = 0;
  for (int seen = 0; !leave; sleep_ms(kPollMs)) {
    if (request == seen) continue;
    seen = request;
    check_thread(state);
    state->checked = seen;
  }
  return argument;
}

static void check_from_outside(struct state* state) {
  void* head = NULL;
  size_t length = 0;
  CHECK(syscall(SYS_get_robust_list, state->tid, &head, &length) == 0 && head == state->robust_list &&
            length == sizeof(struct robust_list_head),
        "robust list of thread %d", state->index);
  CHECK(WAIT_UNTIL(state->checked == subject_generation), "thread %d does not answer", state->index);
  if (state->failure[0] != '\0') subject_fail("%s", state->failure);
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  for (int i = 0; i < kThreads; i++) {
    states[i].index = i;
    states[i].checked = -1;
    REQUIRE(pthread_create(&states[i].thread, NULL, work, &states[i]) == 0);
  }
  for (int i = 0; i < kThreads; i++) REQUIRE(WAIT_UNTIL(states[i].checked == 0));
  pthread_t self = pthread_self();

  for (subject_ready(); subject_next(); subject_verdict()) {
    CHECK(pthread_equal(self, pthread_self()) && getpid() == syscall(SYS_gettid), "the leader is another thread");
    request = subject_generation;
    for (int i = 0; i < kThreads; i++) check_from_outside(&states[i]);
    if (!subject_last) continue;
    leave = true;
    for (int i = 0; i < kThreads; i++) {
      void* value = NULL;
      struct timespec deadline = {time(NULL) + 5, 0};
      CHECK(pthread_timedjoin_np(states[i].thread, &value, &deadline) == 0 && value == &states[i], "join of %d", i);
    }
  }
  return subject_status();
}
