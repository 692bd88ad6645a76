// A dead child that has told its parent of its end by SIGSTOP: to make another one would stop the parent again.
#include <signal.h>
#include <sys/syscall.h>

#include "subject.h"

int main(int argc, char** argv) {
  subject_start(argc, argv);
  const pid_t self = getpid();
  const pid_t child = (pid_t)syscall(SYS_clone, SIGSTOP, NULL, NULL, NULL, NULL);
  REQUIRE(child >= 0);
  if (child == 0) {
    const pid_t helper = fork();
    // It wakes the parent up again.
    for (int i = 0; helper == 0 && i < 100; i++) sleep_ms(1), kill(self, SIGCONT);
    _exit(0);
  }
  siginfo_t info;
  REQUIRE(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT | __WALL) == 0);
  sleep_ms(200);
  for (subject_ready(); subject_next(); subject_verdict())
    CHECK(waitid(P_PID, (id_t)child, &info, WEXITED | WNOHANG | WNOWAIT | __WALL) == 0, "the child is gone");
  REQUIRE(waitpid(child, NULL, __WALL) == child);
  return subject_status();
}
