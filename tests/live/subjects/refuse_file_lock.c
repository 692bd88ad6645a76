// File locks: a dump without --file-locks has to be refused while they are held.
#include <sys/file.h>

#include "subject.h"

int main(int argc, char** argv) {
  subject_start(argc, argv);
  int record = open(subject_path("record"), O_RDWR | O_CREAT, 0600),
      whole = open(subject_path("whole"), O_RDWR | O_CREAT, 0600);
  struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 10, .l_len = 20};
  REQUIRE(record >= 0 && whole >= 0 && fcntl(record, F_SETLK, &range) == 0 && flock(whole, LOCK_EX) == 0);
  for (subject_ready(); subject_next(); subject_verdict()) {
    pid_t child = fork();
    if (child == 0) {
      struct flock probe = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 15, .l_len = 1};
      int other = open(subject_path("whole"), O_RDWR);
      _exit((fcntl(record, F_GETLK, &probe) == 0 && probe.l_type == F_WRLCK && probe.l_pid == getppid() ? 0 : 1) |
            (flock(other, LOCK_EX | LOCK_NB) == -1 ? 0 : 2));
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && status == 0, "a lock is not held: %#x", (unsigned)status);
  }
  return subject_status();
}
