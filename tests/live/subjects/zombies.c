// Children that ended and were not waited for: status, group and session; and the SIGCHLD that is pending for one.
#include <signal.h>

#include "subject.h"

enum { kZombies = 4 };
static pid_t zombies[kZombies];

static void check_status(pid_t pid, int code, int status) {
  siginfo_t info = {0};
  CHECK(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid, "zombie %d is gone",
        pid);
  CHECK(info.si_code == code && info.si_status == status, "zombie %d: code %d, status %d", pid, info.si_code,
        info.si_status);
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  sigset_t blocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGCHLD);
  REQUIRE(sigprocmask(SIG_BLOCK, &blocked, NULL) == 0);
  for (int i = 0; i < kZombies; i++) {
    zombies[i] = fork();
    REQUIRE(zombies[i] >= 0);
    if (zombies[i] != 0) continue;
    if (i == 0) _exit(7);
    if (i == 1) raise(SIGKILL);
    if (i == 2) setpgid(0, 0), _exit(255);
    setsid();
    raise(SIGTERM);
  }
  for (int i = 0; i < kZombies; i++) {
    siginfo_t info;
    REQUIRE(waitid(P_PID, (id_t)zombies[i], &info, WEXITED | WNOWAIT) == 0);
  }
  for (subject_ready(); subject_next(); subject_verdict()) {
    check_status(zombies[0], CLD_EXITED, 7);
    check_status(zombies[1], CLD_KILLED, SIGKILL);
    check_status(zombies[2], CLD_EXITED, 255);
    check_status(zombies[3], CLD_KILLED, SIGTERM);
    CHECK(getpgid(zombies[0]) == getpgid(0) && getpgid(zombies[2]) == zombies[2], "groups of zombies");
    CHECK(getsid(zombies[3]) == zombies[3] && getsid(zombies[0]) == getsid(0), "sessions of zombies");
    sigset_t pending;
    sigpending(&pending);
    CHECK(sigismember(&pending, SIGCHLD) == 1, "SIGCHLD is not pending");
    if (!subject_last) continue;
    int reaped = 0;
    while (waitpid(-1, NULL, WNOHANG) > 0) reaped++;
    CHECK(reaped == kZombies, "%d children were waited for", reaped);
  }
  return subject_status();
}
