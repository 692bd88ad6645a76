// A pair of pseudo terminals in a subject.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "subject.h"

static int pty_master, pty_slave;

static void make_pty(void) {
  char name[64];
  pty_master = posix_openpt(O_RDWR | O_NOCTTY);
  REQUIRE(pty_master >= 0 && unlockpt(pty_master) == 0 && ptsname_r(pty_master, name, sizeof name) == 0);
  pty_slave = open(name, O_RDWR | O_NOCTTY);
  REQUIRE(pty_slave >= 0);
}
