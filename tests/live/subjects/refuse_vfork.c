// A parent inside vfork: it cannot run until its child, which shares its memory, has ended or executed a program.
#include "subject.h"

int main(int argc, char** argv) {
  subject_start(argc, argv);
  pid_t child = vfork();
  REQUIRE(child >= 0);
  if (child == 0) {  // runs in the parent's memory, so the answers below are the parent's as well
    for (subject_ready(); subject_next(); subject_verdict()) CHECK(getppid() > 1, "the parent is gone");
    _exit(subject_status());
  }
  int status = 1;
  return waitpid(child, &status, 0) == child && status == 0 ? 0 : 1;
}
