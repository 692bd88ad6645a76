// A TCP listener that accepts.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "subject.h"

int main(int argc, char** argv) {
  subject_start(argc, argv);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t size = sizeof address;
  int listener = socket(AF_INET, SOCK_STREAM, 0);
  REQUIRE(listener >= 0 && bind(listener, (struct sockaddr*)&address, size) == 0 && listen(listener, 8) == 0);
  REQUIRE(getsockname(listener, (struct sockaddr*)&address, &size) == 0);
  for (subject_ready(); subject_next(); subject_verdict()) {
    int client = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(client, (struct sockaddr*)&address, sizeof address) == 0, "connect");
    int server = accept(listener, NULL, NULL);
    char byte = 0;
    CHECK(server >= 0 && write(server, "x", 1) == 1 && read(client, &byte, 1) == 1 && byte == 'x', "exchange");
    close(server);
    close(client);
  }
  return subject_status();
}
