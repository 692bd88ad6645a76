// A parent that traces its child: nobody else can, so a dump has to be refused and leave both as they are.
#include <signal.h>
#include <sys/ptrace.h>

#include "subject.h"

int main(int argc, char** argv) {
  subject_start(argc, argv);
  pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    while (subject_next()) subject_part("child");
    _exit(subject_status());
  }
  REQUIRE(ptrace(PTRACE_SEIZE, child, NULL, PTRACE_O_EXITKILL) == 0);
  for (subject_ready(); subject_next(); subject_verdict()) {
    subject_collect("child");
    int status = 0;
    if (!subject_last) {
      CHECK(waitpid(child, &status, WNOHANG) == 0, "the tracer sees a stop it did not ask for: %#x", (unsigned)status);
      CHECK(
          ptrace(PTRACE_INTERRUPT, child, NULL, NULL) == 0 && waitpid(child, &status, 0) == child && WIFSTOPPED(status),
          "interrupt");
      CHECK(ptrace(PTRACE_CONT, child, NULL, NULL) == 0, "continue");
    }
    subject_join(child);
  }
  return subject_status();
}
