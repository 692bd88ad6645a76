// Dispositions of all signals with flags and masks, the blocked set, and what they do afterwards: SA_SIGINFO,
// SA_RESTART, SA_RESETHAND, SA_NODEFER.
#include <signal.h>
#include <sys/syscall.h>

#include "subject.h"

// The kernel's view: libc hides the restorer and its own two signals (sigaction(2), "C library/kernel differences").
struct kernel_action {
  uintptr_t handler;
  unsigned long flags;
  uintptr_t restorer;
  uint64_t mask;
};

static volatile int plain_calls, info_calls, info_value, depth, deepest;

static void on_plain(int number) {
  plain_calls += number;
}
static void on_info(int number, siginfo_t* info, void* context) {
  if (number != SIGRTMIN + 3 || context == NULL) return;
  info_calls++;
  info_value = info->si_value.sival_int;
}
static void on_nested(int number) {
  if (++depth > deepest) deepest = depth;
  if (depth == 1) raise(number);
  depth--;
}

static void install(int number, void (*handler)(int), int flags, int masked) {
  struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
  sigemptyset(&action.sa_mask);
  if (masked != 0) sigaddset(&action.sa_mask, masked);
  REQUIRE(sigaction(number, &action, NULL) == 0);
}

static void read_all(struct kernel_action* actions) {
  for (int i = 1; i <= 64; i++)
    if (syscall(SYS_rt_sigaction, i, NULL, &actions[i], sizeof(uint64_t)) != 0) actions[i].flags = ~0ul;
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  install(SIGUSR1, on_plain, SA_RESTART, SIGUSR2);
  install(SIGUSR2, on_plain, SA_RESETHAND, 0);
  install(SIGPIPE, SIG_IGN, 0, 0);
  install(SIGCHLD, SIG_DFL, SA_NOCLDSTOP | SA_NOCLDWAIT, 0);
  install(SIGRTMIN + 5, on_nested, SA_NODEFER, SIGRTMAX);
  struct sigaction with_info = {.sa_sigaction = on_info, .sa_flags = SA_SIGINFO | SA_ONSTACK};
  sigfillset(&with_info.sa_mask);
  REQUIRE(sigaction(SIGRTMIN + 3, &with_info, NULL) == 0);
  sigset_t blocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGTERM);
  sigaddset(&blocked, SIGRTMIN + 10);
  sigaddset(&blocked, SIGRTMAX);
  REQUIRE(sigprocmask(SIG_SETMASK, &blocked, NULL) == 0);
  static struct kernel_action before[65], after[65];
  read_all(before);

  for (subject_ready(); subject_next(); subject_verdict()) {
    read_all(after);
    for (int i = 1; i <= 64; i++)
      CHECK(memcmp(&before[i], &after[i], sizeof after[i]) == 0, "the action of signal %d", i);
    sigset_t now;
    sigprocmask(SIG_SETMASK, NULL, &now);
    for (int i = 1; i <= SIGRTMAX; i++) CHECK(sigismember(&now, i) == sigismember(&blocked, i), "blocked signal %d", i);
    plain_calls = info_calls = deepest = 0;
    raise(SIGUSR1);
    raise(SIGUSR2);
    CHECK(plain_calls == SIGUSR1 + SIGUSR2, "the handlers did not run");
    struct sigaction reset;
    sigaction(SIGUSR2, NULL, &reset);
    CHECK(reset.sa_handler == SIG_DFL, "SA_RESETHAND did not reset");
    install(SIGUSR2, on_plain, SA_RESETHAND, 0);
    union sigval value = {.sival_int = 4711 + subject_generation};
    sigqueue(getpid(), SIGRTMIN + 3, value);
    CHECK(info_calls == 1 && info_value == 4711 + subject_generation, "the value of a queued signal");
    raise(SIGRTMIN + 5);
    CHECK(deepest == 2, "SA_NODEFER does not nest");
    raise(SIGPIPE);  // ignored, or this program ends here
  }
  return subject_status();
}
