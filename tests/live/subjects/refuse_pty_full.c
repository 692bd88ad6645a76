// More lines wait than a terminal holds: those behind have not been looked at for special characters yet.
#include "make_pty.h"

enum { kLines = 600, kLineBytes = 10 };

int main(int argc, char** argv) {
  subject_start(argc, argv);
  make_pty();
  struct termios settings;
  REQUIRE(tcgetattr(pty_slave, &settings) == 0);
  settings.c_lflag &= ~(tcflag_t)ECHO;
  REQUIRE(tcsetattr(pty_slave, TCSANOW, &settings) == 0);
  char line[kLineBytes + 1], found[kLineBytes + 1] = "";
  for (int i = 0; i < kLines; i++) {
    snprintf(line, sizeof line, "line %04d\n", i);
    REQUIRE(write(pty_master, line, kLineBytes) == kLineBytes);
  }
  sleep_ms(20);
  for (subject_ready(); subject_next(); subject_verdict()) {
    struct pollfd slave = {pty_slave, POLLIN, 0};
    CHECK(poll(&slave, 1, 0) == 1, "the input is gone");
    for (int i = 0; subject_last && i < kLines; i++) {
      snprintf(line, sizeof line, "line %04d\n", i);
      CHECK(read(pty_slave, found, sizeof found) == kLineBytes && memcmp(line, found, kLineBytes) == 0,
            "line %d is \"%.10s\"", i, found);
    }
  }
  return subject_status();
}
