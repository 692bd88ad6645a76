// A child whose end is told by another signal than SIGCHLD.
#include <signal.h>
#include <sys/syscall.h>

#include "subject.h"

int main(int argc, char** argv) {
  subject_start(argc, argv);
  const pid_t child = (pid_t)syscall(SYS_clone, SIGUSR1, NULL, NULL, NULL, NULL);
  REQUIRE(child >= 0);
  if (child == 0)
    for (;;) pause();
  for (subject_ready(); subject_next(); subject_verdict()) CHECK(kill(child, 0) == 0, "the child is gone");
  signal(SIGUSR1, SIG_IGN);
  kill(child, SIGKILL);
  waitpid(child, NULL, __WALL);
  return subject_status();
}
