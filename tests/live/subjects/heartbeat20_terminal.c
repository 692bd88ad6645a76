// heartbeat20 with a terminal in which much waits, both ways: who looks at it takes it out, and must put it back
// whatever happens.
#define HEARTBEAT_TERMINAL
#include "heartbeat20.c"
#include "make_pty.h"

enum { kOutputBytes = 6000 };
static const char kLines[] = "one\ntwo\n", kBegun[] = "thr";
static char output[kOutputBytes];

static void fill_terminal(void) {
  make_pty();
  struct termios settings;
  REQUIRE(tcgetattr(pty_slave, &settings) == 0);
  settings.c_lflag &= ~(tcflag_t)ECHO;
  settings.c_oflag = 0;
  REQUIRE(tcsetattr(pty_slave, TCSANOW, &settings) == 0);
  for (size_t i = 0; i < sizeof output; i++) output[i] = (char)(i * 7 + i / 256);
  REQUIRE(write(pty_master, kLines, strlen(kLines)) == (ssize_t)strlen(kLines));
  REQUIRE(write(pty_master, kBegun, strlen(kBegun)) == (ssize_t)strlen(kBegun));
  for (size_t at = 0; at < sizeof output; at += 200) REQUIRE(write(pty_slave, output + at, 200) == 200);
  sleep_ms(20);
}

static void check_terminal(void) {
  struct termios settings;
  CHECK(tcgetattr(pty_slave, &settings) == 0 && (settings.c_lflag & (ICANON | ISIG | ECHO)) == (ICANON | ISIG),
        "the settings are %#x", settings.c_lflag);
  if (!subject_last) return;
  static char found[kOutputBytes];
  for (size_t at = 0; at < sizeof found;) {
    struct pollfd ready = {pty_master, POLLIN, 0};
    ssize_t got = poll(&ready, 1, 1000) == 1 ? read(pty_master, found + at, sizeof found - at) : -1;
    CHECK(got > 0, "only %zu bytes of output are left", at);
    if (got <= 0) return;
    at += (size_t)got;
  }
  CHECK(memcmp(found, output, sizeof output) == 0, "the output is another one");
  REQUIRE(write(pty_master, "ee\n", 3) == 3);
  char line[64] = "";
  CHECK(read(pty_slave, line, sizeof line) == 4 && memcmp(line, "one\n", 4) == 0, "the first line is \"%s\"", line);
  CHECK(read(pty_slave, line, sizeof line) == 4 && memcmp(line, "two\n", 4) == 0, "the second line is \"%s\"", line);
  CHECK(read(pty_slave, line, sizeof line) == 6 && memcmp(line, "three\n", 6) == 0, "the third line is \"%s\"", line);
}
