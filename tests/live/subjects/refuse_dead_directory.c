// The working directory is that of a process in /proc, and the process is dead.
#include <signal.h>

#include "subject.h"

int main(int argc, char** argv) {
  subject_start(argc, argv);
  pid_t dead = fork();
  REQUIRE(dead >= 0);
  if (dead == 0) {
    pause();
    _exit(0);
  }
  char path[64];
  snprintf(path, sizeof path, "/proc/%d", (int)dead);
  REQUIRE(chdir(path) == 0 && kill(dead, SIGKILL) == 0 && waitpid(dead, NULL, 0) == dead);
  for (subject_ready(); subject_next(); subject_verdict())
    CHECK(getcwd(path, sizeof path) == NULL && errno == ENOENT, "the working directory is %s", path);
  return subject_status();
}
