// The master is in packet mode, and has not read yet that the flow control of its slave has changed.
#include "make_pty.h"

int main(int argc, char** argv) {
  subject_start(argc, argv);
  make_pty();
  const int on = 1;
  struct termios settings;
  REQUIRE(ioctl(pty_master, TIOCPKT, &on) == 0 && tcgetattr(pty_slave, &settings) == 0);
  settings.c_iflag &= ~(tcflag_t)IXON;
  REQUIRE(tcsetattr(pty_slave, TCSANOW, &settings) == 0);
  for (subject_ready(); subject_next(); subject_verdict()) {
    struct pollfd master = {pty_master, POLLPRI, 0};
    CHECK(poll(&master, 1, 0) == 1, "the status is gone");
    if (!subject_last) continue;
    unsigned char status = 0;
    CHECK(read(pty_master, &status, 1) == 1 && status == TIOCPKT_NOSTOP, "the status is %d", status);
  }
  return subject_status();
}
