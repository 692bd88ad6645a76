// A connected pair of unix sockets with data in flight.
#include <sys/socket.h>

#include "subject.h"

int main(int argc, char** argv) {
  subject_start(argc, argv);
  int ends[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends) == 0);
  REQUIRE(send(ends[0], "first", 5, 0) == 5 && send(ends[0], "second!", 7, 0) == 7);
  for (subject_ready(); subject_next(); subject_verdict()) {
    char text[16] = "";
    CHECK(recv(ends[1], text, sizeof text, MSG_DONTWAIT) == 5 && memcmp(text, "first", 5) == 0, "first message");
    CHECK(recv(ends[1], text, sizeof text, MSG_DONTWAIT) == 7, "second message");
    CHECK(send(ends[0], "first", 5, 0) == 5 && send(ends[0], "second!", 7, 0) == 7, "sending");
  }
  return subject_status();
}
