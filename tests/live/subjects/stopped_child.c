// Stopped children: one whose stop the parent has not collected yet, one whose stop it has, and one stopped by
// SIGTSTP. They come back stopped, report the same, and go on by SIGCONT.
#include <signal.h>

#include "subject.h"

enum { kChildren = 3 };
static const int kSignals[kChildren] = {SIGSTOP, SIGSTOP, SIGTSTP};

static char state_of(pid_t pid) {
  char path[64], text[512];
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  if (subject_read_file(path, text, sizeof text) <= 0) return '?';
  const char* end = strrchr(text, ')');
  return end != NULL ? end[2] : '?';
}

static void count_forever(int index) {
  char name[16];
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
  kill(child, kSignals[index]);
  if (index == 1) waitpid(child, NULL, WUNTRACED);  // this stop is collected, the others are not
  CHECK(WAIT_UNTIL(state_of(child) == 'T'), "child %d does not stop", index);
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  pid_t children[kChildren];
  for (int i = 0; i < kChildren; i++) {
    children[i] = fork();
    REQUIRE(children[i] >= 0);
    if (children[i] == 0) {
      if (kSignals[i] == SIGTSTP)
        setpgid(0, 0);  // an orphaned group would ignore SIGTSTP; this one has its parent outside
      count_forever(i);
    }
    REQUIRE(WAIT_UNTIL(beat_of(i) > 0));
    stop_child(children[i], i);
  }
  REQUIRE(subject_failure[0] == '\0');

  for (subject_ready(); subject_next(); subject_verdict()) {
    for (int i = 0; i < kChildren; i++) {
      long beat = beat_of(i);
      sleep_ms(20);
      CHECK(state_of(children[i]) == 'T' && beat_of(i) == beat, "child %d is not stopped but %c", i,
            state_of(children[i]));
      int status = 0;
      pid_t got = waitpid(children[i], &status, WUNTRACED | WNOHANG);
      // Nothing tells a dump that a stop was collected: after a restore it may be reported once more.
      if (i != 1 || got != 0)
        CHECK(got == children[i] && WIFSTOPPED(status) && WSTOPSIG(status) == kSignals[i], "child %d: status %#x", i,
              (unsigned)status);
      kill(children[i], SIGCONT);
      CHECK(WAIT_UNTIL(beat_of(i) > beat), "child %d does not go on", i);
      waitpid(children[i], &status, WCONTINUED | WNOHANG);
      stop_child(children[i], i);
    }
    for (int i = 0; subject_last && i < kChildren; i++) {
      kill(children[i], SIGKILL);
      waitpid(children[i], NULL, 0);
    }
  }
  return subject_status();
}
