// A line discipline with state of its own; this one has none, but tells it from others just as they do.
#include "make_pty.h"

int main(int argc, char** argv) {
  enum { kNull = 27 };  // N_NULL
  subject_start(argc, argv);
  make_pty();
  const int discipline = kNull;
  if (ioctl(pty_slave, TIOCSETD, &discipline) != 0) subject_skip("line discipline 27 (N_NULL)");
  for (subject_ready(); subject_next(); subject_verdict()) {
    int found = 0;
    CHECK(ioctl(pty_slave, TIOCGETD, &found) == 0 && found == discipline, "the line discipline is %d", found);
  }
  return subject_status();
}
