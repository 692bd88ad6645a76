// A SIGTRAP that is pending: a checkpoint could not tell it from its own stops.
#include <signal.h>

#include "subject.h"

int main(int argc, char** argv) {
  subject_start(argc, argv);
  sigset_t trap, pending;
  sigemptyset(&trap);
  sigaddset(&trap, SIGTRAP);
  REQUIRE(sigprocmask(SIG_BLOCK, &trap, NULL) == 0 && kill(getpid(), SIGTRAP) == 0);
  for (subject_ready(); subject_next(); subject_verdict())
    CHECK(sigpending(&pending) == 0 && sigismember(&pending, SIGTRAP) == 1, "SIGTRAP is no longer pending");
  return subject_status();
}
