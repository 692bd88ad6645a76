// Stopped children: one whose stop the parent has not collected yet, one whose stop it has, one stopped by SIGTSTP, and
// one with a second thread and with further stop signals pending. They come back stopped, report the same once, and go
// on by SIGCONT. The parent sees no SIGCHLD that it has not seen before.
#include <signal.h>
#include <sys/syscall.h>

#include "start_thread.h"
#include "subject.h"

enum { kChildren = 5, kCollected = 1, kThreaded = 3, kCollectedTerminal = 4 };
static const int kSignals[kChildren] = {SIGSTOP, SIGSTOP, SIGTSTP, SIGSTOP, SIGTTIN};
static volatile int told;

static void on_child(int number) {
  (void)number;
  told++;
}

static char state_of(pid_t pid) {
  char path[64], text[512];
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  if (subject_read_file(path, text, sizeof text) <= 0) return '?';
  const char* end = strrchr(text, ')');
  return end != NULL ? end[2] : '?';
}

static void* idle(void* unused) {
  for (;;) sleep_ms(1);
  return unused;
}

static void count_forever(int index) {
  char name[16];
  pthread_t thread;
  if (index == kThreaded) start_thread(&thread, idle, NULL);
  snprintf(name, sizeof name, "beat.%d", index);
  for (long count = 1;; count++) {
    char text[32];
    snprintf(text, sizeof text, "%ld\n", count);
    subject_write_file(name, text);
    sleep_ms(2);
  }
}
static long beat_of(int index) {
  char name[16], text[32];
  snprintf(name, sizeof name, "beat.%d", index);
  return subject_read_file(subject_path(name), text, sizeof text) > 0 ? atol(text) : 0;
}

static void stop_child(pid_t child, int index) {
  int before = told;
  kill(child, kSignals[index]);
  CHECK(WAIT_UNTIL(state_of(child) == 'T') && WAIT_UNTIL(told > before), "child %d does not stop", index);
  // These stops are collected, the others are not.
  if (index == kCollected || index == kCollectedTerminal)
    CHECK(waitpid(child, NULL, WUNTRACED | WNOHANG) == child, "the stop of child %d", index);
  if (index != kThreaded) return;
  kill(child, SIGTSTP);
  kill(child, SIGSTOP);
  syscall(SYS_tgkill, child, child, SIGTTIN);
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  struct sigaction action = {.sa_handler = on_child, .sa_flags = SA_RESTART};
  REQUIRE(sigaction(SIGCHLD, &action, NULL) == 0);
  pid_t children[kChildren];
  for (int i = 0; i < kChildren; i++) {
    children[i] = fork();
    REQUIRE(children[i] >= 0);
    if (children[i] == 0) {
      if (kSignals[i] != SIGSTOP)
        setpgid(0, 0);  // an orphaned group would ignore SIGTSTP; this one has its parent outside
      count_forever(i);
    }
    REQUIRE(WAIT_UNTIL(beat_of(i) > 0));
    stop_child(children[i], i);
  }
  REQUIRE(subject_failure[0] == '\0');

  int seen = told;
  for (subject_ready(); subject_next(); subject_verdict()) {
    CHECK(told == seen, "%d SIGCHLD by the checkpoint", told - seen);
    for (int i = 0; i < kChildren; i++) {
      long beat = beat_of(i);
      sleep_ms(20);
      CHECK(state_of(children[i]) == 'T' && beat_of(i) == beat, "child %d is not stopped but %c", i,
            state_of(children[i]));
      int status = 0;
      pid_t got = waitpid(children[i], &status, WUNTRACED | WNOHANG);
      if (i == kCollected || i == kCollectedTerminal)
        CHECK(got == 0, "child %d reports its stop again: %#x", i, (unsigned)status);
      else
        CHECK(got == children[i] && WIFSTOPPED(status) && WSTOPSIG(status) == kSignals[i], "child %d: status %#x", i,
              (unsigned)status);
      kill(children[i], SIGCONT);
      CHECK(WAIT_UNTIL(beat_of(i) > beat), "child %d does not go on", i);
      waitpid(children[i], &status, WCONTINUED | WNOHANG);
      stop_child(children[i], i);
    }
    seen = told;
    for (int i = 0; subject_last && i < kChildren; i++) {
      kill(children[i], SIGKILL);
      waitpid(children[i], NULL, 0);
    }
  }
  return subject_status();
}
