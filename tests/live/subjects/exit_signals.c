// Children whose end is told by another signal than SIGCHLD, or by none: living ones, a stopped one and dead ones.
// Only a wait for "clone" children (__WCLONE, __WALL) sees them.
#include <signal.h>
#include <sys/syscall.h>

#include "subject.h"

enum { kLiving = 5, kDead = 4 };
static const int living_signals[kLiving] = {SIGUSR1, 0, 40, SIGCHLD, SIGURG};
static const int dead_signals[kDead] = {SIGUSR2, 0, 41, 41};
static pid_t living[kLiving], dead[kDead], stopped;

static pid_t start(int exit_signal) {
  const pid_t pid = (pid_t)syscall(SYS_clone, (long)exit_signal, NULL, NULL, NULL, NULL);
  REQUIRE(pid >= 0);
  return pid;
}

static int exit_signal_of(pid_t pid) {
  char path[64], text[1024];
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  CHECK(subject_read_file(path, text, sizeof text) > 0, "%d is gone", pid);
  const char* field = strrchr(text, ')');
  for (int number = 2; field != NULL && number < 38; number++) field = strchr(field + 1, ' ');
  return field == NULL ? -1 : atoi(field);
}

static bool is_child(pid_t pid, int options) {
  siginfo_t info = {0};
  return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT | options) == 0;
}

static int take(int signal, pid_t* from) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, signal);
  siginfo_t info = {0};
  const struct timespec no_wait = {0};
  const int got = sigtimedwait(&set, &info, &no_wait);
  *from = info.si_pid;
  return got;
}

static void expect_silence(void) {
  pid_t from;
  for (int signal = 1; signal <= 64; signal++)
    if (signal != SIGKILL && signal != SIGSTOP && signal != 32 && signal != 33)
      CHECK(take(signal, &from) == -1, "signal %d of %d is pending", signal, from);
}

static void expect_end(int i) {
  kill(living[i], SIGKILL);
  siginfo_t info = {0};
  CHECK(waitid(P_PID, (id_t)living[i], &info, WEXITED | WNOWAIT | __WALL) == 0, "child %d does not end", i);
  pid_t from = 0;
  if (living_signals[i] != 0)
    CHECK(take(living_signals[i], &from) == living_signals[i] && from == living[i], "end of child %d: signal of %d", i,
          from);
  expect_silence();
  CHECK(waitpid(living[i], NULL, __WALL) == living[i], "child %d cannot be waited for", i);
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  sigset_t all;
  sigfillset(&all);
  REQUIRE(sigprocmask(SIG_BLOCK, &all, NULL) == 0);
  for (int i = 0; i < kLiving; i++) {
    living[i] = start(living_signals[i]);
    while (living[i] == 0) pause();
  }
  for (int i = 0; i < kDead; i++) {
    dead[i] = start(dead_signals[i]);
    if (dead[i] == 0) _exit(10 + i);
    siginfo_t info;
    pid_t from;
    REQUIRE(waitid(P_PID, (id_t)dead[i], &info, WEXITED | WNOWAIT | __WALL) == 0);
    if (dead_signals[i] != 0) REQUIRE(take(dead_signals[i], &from) == dead_signals[i]);
  }
  stopped = start(SIGUSR1);
  while (stopped == 0) pause();
  REQUIRE(kill(stopped, SIGSTOP) == 0 && waitpid(stopped, NULL, WUNTRACED | __WALL) == stopped);
  pid_t from;
  REQUIRE(take(SIGCHLD, &from) == SIGCHLD);

  for (subject_ready(); subject_next(); subject_verdict()) {
    for (int i = 0; i < kLiving; i++) {
      CHECK(exit_signal_of(living[i]) == living_signals[i], "child %d has signal %d", i, exit_signal_of(living[i]));
      const bool plain = living_signals[i] == SIGCHLD;
      CHECK(is_child(living[i], __WALL), "child %d is none", i);
      CHECK(is_child(living[i], 0) == plain && is_child(living[i], __WCLONE) == !plain, "kind of child %d", i);
    }
    for (int i = 0; i < kDead; i++) {
      siginfo_t info = {0};
      CHECK(exit_signal_of(dead[i]) == dead_signals[i], "zombie %d has signal %d", i, exit_signal_of(dead[i]));
      CHECK(!is_child(dead[i], 0), "zombie %d is a plain child", i);
      CHECK(waitid(P_PID, (id_t)dead[i], &info, WEXITED | WNOHANG | WNOWAIT | __WCLONE) == 0 &&
                info.si_pid == dead[i] && info.si_status == 10 + i,
            "status of zombie %d: %d", i, info.si_status);
    }
    int status;
    CHECK(waitpid(stopped, &status, WUNTRACED | WNOHANG | __WALL) == 0, "the stop is told again");
    if (!subject_last) continue;
    expect_silence();
    for (int i = 0; i < kLiving; i++) expect_end(i);
    kill(stopped, SIGKILL);
    CHECK(waitpid(stopped, NULL, __WALL) == stopped, "the stopped child cannot be waited for");
    for (int i = 0; i < kDead; i++)
      CHECK(waitpid(dead[i], &status, __WALL | WNOHANG) == dead[i] && WEXITSTATUS(status) == 10 + i, "zombie %d", i);
  }
  return subject_status();
}
