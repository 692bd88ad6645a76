// A pidfd of a process that is not part of the tree.
#include <sys/syscall.h>

#include "subject.h"

int main(int argc, char** argv) {
  subject_start(argc, argv);
  int fd = (int)syscall(SYS_pidfd_open, getppid(), 0);
  REQUIRE(fd >= 0);
  for (subject_ready(); subject_next(); subject_verdict())
    CHECK(syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0) == 0, "the parent is not there");
  return subject_status();
}
