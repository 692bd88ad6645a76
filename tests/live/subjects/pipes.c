// Pipes: data in flight, full, enlarged, with closed ends, packets, and O_NONBLOCK per description.
#include <signal.h>
#include <sys/ioctl.h>

#include "subject.h"

static void pattern(char* bytes, size_t size, unsigned salt) {
  for (size_t i = 0; i < size; i++) bytes[i] = (char)(i * 31 + salt + i / 251);
}

static char wanted[1 << 20], found[1 << 20];

static void make(int ends[2], int flags) {
  REQUIRE(pipe2(ends, flags) == 0);
}
static void put(int fd, size_t size, unsigned salt) {
  pattern(wanted, size, salt);
  REQUIRE(write(fd, wanted, size) == (ssize_t)size);
}
// Reads everything, compares, and puts it back.
static void check_content(const char* name, const int ends[2], size_t size, unsigned salt) {
  int waiting = -1;
  CHECK(ioctl(ends[0], FIONREAD, &waiting) == 0 && waiting == (int)size, "%s: %d bytes instead of %zu", name, waiting,
        size);
  if (waiting != (int)size) return;
  size_t have = 0;
  while (have < size) {
    ssize_t got = read(ends[0], found + have, size - have);
    CHECK(got > 0, "%s: read", name);
    if (got <= 0) return;
    have += (size_t)got;
  }
  pattern(wanted, size, salt);
  CHECK(memcmp(wanted, found, size) == 0, "%s: content", name);
  if (ends[1] >= 0) CHECK(write(ends[1], wanted, size) == (ssize_t)size, "%s: putting it back", name);
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  signal(SIGPIPE, SIG_IGN);
  int some[2], full[2], large[2], closed_reader[2], nonblock[2], packets[2], small[2], empty[2];
  make(some, 0);
  put(some[1], 1000, 1);
  make(full, 0);
  put(full[1], 65536, 2);
  make(large, O_CLOEXEC);
  REQUIRE(fcntl(large[1], F_SETPIPE_SZ, 1 << 20) == 1 << 20);
  put(large[1], 1 << 20, 3);
  make(closed_reader, 0);
  close(closed_reader[0]);
  make(nonblock, 0);
  REQUIRE(fcntl(nonblock[0], F_SETFL, O_NONBLOCK) == 0);
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", nonblock[0]);
  int reopened = open(path, O_RDONLY);  // a second description of the read end
  make(packets, O_DIRECT);
  make(small, 0);
  REQUIRE(fcntl(small[1], F_SETPIPE_SZ, kPageBytes) == kPageBytes);
  make(empty, 0);
  // A pipe whose writer is gone: data, then end of file. Consumed by the check, so made again after each one.
  int eof[2];
  make(eof, 0);
  put(eof[1], 300, 4);
  close(eof[1]);
  eof[1] = -1;

  for (subject_ready(); subject_next(); subject_verdict()) {
    check_content("some data", some, 1000, 1);
    check_content("full", full, 65536, 2);
    CHECK(fcntl(full[1], F_GETPIPE_SZ) == 65536, "size of the full pipe");
    CHECK(fcntl(large[0], F_GETPIPE_SZ) == 1 << 20, "size of the large pipe is %d", fcntl(large[0], F_GETPIPE_SZ));
    check_content("large", large, 1 << 20, 3);
    CHECK(fcntl(large[0], F_GETFD) == FD_CLOEXEC && fcntl(some[0], F_GETFD) == 0, "close-on-exec");
    CHECK(fcntl(small[0], F_GETPIPE_SZ) == kPageBytes, "size of the small pipe is %d", fcntl(small[0], F_GETPIPE_SZ));
    CHECK(write(closed_reader[1], "x", 1) == -1 && errno == EPIPE, "a pipe without reader takes data");
    CHECK((fcntl(nonblock[0], F_GETFL) & O_NONBLOCK) != 0 && (fcntl(nonblock[1], F_GETFL) & O_NONBLOCK) == 0,
          "O_NONBLOCK");
    CHECK((fcntl(reopened, F_GETFL) & O_NONBLOCK) == 0, "O_NONBLOCK of the second description");
    CHECK(read(nonblock[0], found, 1) == -1 && errno == EAGAIN, "a read that may not block");
    CHECK(write(nonblock[1], "y", 1) == 1 && read(reopened, found, 1) == 1 && found[0] == 'y',
          "the second description");
    CHECK((fcntl(packets[1], F_GETFL) & O_DIRECT) != 0, "packet mode");
    CHECK(write(packets[1], "ab", 2) == 2 && write(packets[1], "c", 1) == 1 && read(packets[0], found, 10) == 2 &&
              read(packets[0], found, 10) == 1,
          "boundaries of packets");
    int waiting = -1;
    CHECK(ioctl(empty[0], FIONREAD, &waiting) == 0 && waiting == 0, "the empty pipe holds %d bytes", waiting);
    check_content("without a writer", eof, 300, 4);
    CHECK(read(eof[0], found, 1) == 0, "no end of file");
    close(eof[0]);
    make(eof, 0);
    put(eof[1], 300, 4);
    close(eof[1]);
    eof[1] = -1;
  }
  return subject_status();
}
