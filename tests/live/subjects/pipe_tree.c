// Pipes between tasks: a ring through four processes, each end held by another task, with tokens in flight.
#include "subject.h"

enum { kTasks = 4, kInFlight = 2 };

// Passes tokens on, each raised by one.
static void relay(int in, int out) {
  for (;;) {
    int token;
    if (read(in, &token, sizeof token) != sizeof token) _exit(0);  // the parent closed its end
    token++;
    if (write(out, &token, sizeof token) != sizeof token) _exit(1);
  }
}

// Tokens that a checkpoint finds somewhere in the ring.
static void put_in_flight(int fd) {
  for (int i = 0; i < kInFlight; i++) {
    int token = -1000 * i;
    CHECK(write(fd, &token, sizeof token) == sizeof token, "write into the ring");
  }
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  int ring[kTasks + 1][2];
  pid_t children[kTasks];
  for (int i = 0; i <= kTasks; i++) REQUIRE(pipe2(ring[i], 0) == 0);
  for (int i = 0; i < kTasks; i++) {
    children[i] = fork();
    REQUIRE(children[i] >= 0);
    if (children[i] != 0) continue;
    for (int k = 0; k <= kTasks; k++) {
      if (k != i) close(ring[k][0]);
      if (k != i + 1) close(ring[k][1]);
    }
    relay(ring[i][0], ring[i + 1][1]);
  }
  for (int i = 0; i <= kTasks; i++) {
    if (i != kTasks) close(ring[i][0]);
    if (i != 0) close(ring[i][1]);
  }
  put_in_flight(ring[0][1]);
  sleep_ms(50);

  for (subject_ready(); subject_next(); subject_verdict()) {
    for (int i = 0; i < kInFlight; i++) {
      int token = 0;
      CHECK(read(ring[kTasks][0], &token, sizeof token) == sizeof token && token == -1000 * i + kTasks,
            "token in flight is %d", token);
    }
    for (int round = 0; round < 50; round++) {
      int token = round * 100;
      CHECK(write(ring[0][1], &token, sizeof token) == sizeof token, "write into the ring");
      CHECK(read(ring[kTasks][0], &token, sizeof token) == sizeof token && token == round * 100 + kTasks,
            "the token is %d", token);
    }
    put_in_flight(ring[0][1]);
    sleep_ms(50);
    if (!subject_last) continue;
    for (int i = 0, token; i < kInFlight; i++)
      CHECK(read(ring[kTasks][0], &token, sizeof token) == sizeof token, "last tokens");
    close(ring[0][1]);  // end of file runs through the ring and ends everybody
    char byte;
    CHECK(read(ring[kTasks][0], &byte, 1) == 0, "no end of file at the end of the ring");
    for (int i = 0; i < kTasks; i++) subject_join(children[i]);
  }
  return subject_status();
}
