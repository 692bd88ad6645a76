// Ends of fifos: data without a reader, readers before and after their writers, sizes, packets, flags, O_PATH, two
// names of one fifo, and tasks that wait for data and for the opposite end.
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>

#include "subject.h"

enum { kLargeBytes = 1 << 20 };
static char wanted[kLargeBytes], found[kLargeBytes];

static void make(const char* name, mode_t mode) {
  REQUIRE(mkfifo(subject_path(name), 0600) == 0 && chmod(subject_path(name), mode) == 0);
}
static int open_end(const char* name, int flags) {
  int fd = open(subject_path(name), flags);
  REQUIRE(fd >= 0);
  return fd;
}
static int events_of(int fd) {
  struct pollfd end = {.fd = fd, .events = POLLIN | POLLOUT};
  REQUIRE(poll(&end, 1, 0) >= 0);
  return end.revents;
}
static int waiting_bytes(int fd) {
  int bytes = -1;
  CHECK(ioctl(fd, FIONREAD, &bytes) == 0, "FIONREAD");
  return bytes;
}
static volatile int got_data, got_open;
static void* waits_for_data(void* fd) {
  for (char byte; read(*(int*)fd, &byte, 1) == 1;) got_data += byte;
  return NULL;
}
static void* waits_for_reader(void* unused) {
  (void)unused;
  int fd = open(subject_path("nobody"), O_WRONLY);
  got_open = fd >= 0 ? 1 : -1;
  return NULL;
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  signal(SIGPIPE, SIG_IGN);
  // Writers with data in flight, and nobody to read it.
  make("unread", 0642);
  int first = open_end("unread", O_RDONLY | O_NONBLOCK), unread = open_end("unread", O_WRONLY | O_APPEND);
  REQUIRE(write(unread, "unread", 6) == 6);
  close(first);
  // A reader from before any writer, and one whose writers are gone, with data left.
  make("early", 0600);
  int early = open_end("early", O_RDONLY | O_NONBLOCK);
  REQUIRE(fcntl(early, F_SETFL, 0) == 0);
  make("late", 0600);
  int late = open_end("late", O_RDWR);
  REQUIRE(write(late, "left", 4) == 4);
  int left = open_end("late", O_RDONLY);
  close(late);
  // Size, packets, and separate descriptions with flags of their own.
  make("large", 0600);
  int large = open_end("large", O_RDWR);
  REQUIRE(fcntl(large, F_SETPIPE_SZ, kLargeBytes) == kLargeBytes);
  for (int i = 0; i < kLargeBytes; i++) wanted[i] = (char)(i * 31 + i / 251);
  REQUIRE(write(large, wanted, kLargeBytes) == kLargeBytes);
  make("packets", 0600);
  int packet_reader = open_end("packets", O_RDONLY | O_NONBLOCK), packet_writer = open_end("packets", O_WRONLY);
  REQUIRE(fcntl(packet_writer, F_SETFL, O_DIRECT) == 0);
  REQUIRE(write(packet_writer, "one", 3) == 3 && write(packet_writer, "two two", 7) == 7);
  int other_reader = open_end("packets", O_RDONLY);
  int duplicate = dup(other_reader);
  // The name alone, and a second name.
  int name_only = open_end("packets", O_PATH);
  REQUIRE(link(subject_path("large"), subject_path("second name")) == 0);
  int second_name = open_end("second name", O_RDONLY | O_NONBLOCK);
  // Tasks that wait.
  make("data", 0600);
  make("nobody", 0600);
  int data = open_end("data", O_RDWR);
  pthread_t thread;
  REQUIRE(pthread_create(&thread, NULL, waits_for_data, &data) == 0);
  REQUIRE(pthread_create(&thread, NULL, waits_for_reader, NULL) == 0);
  sleep_ms(50);

  for (subject_ready(); subject_next(); subject_verdict()) {
    CHECK((events_of(unread) & POLLERR) != 0, "a fifo without reader: %#x", events_of(unread));
    CHECK(write(unread, "x", 1) == -1 && errno == EPIPE, "a fifo without reader takes data");
    CHECK((fcntl(unread, F_GETFL) & (O_APPEND | O_ACCMODE)) == (O_APPEND | O_WRONLY), "flags of the writer");
    struct stat info;
    CHECK(fstat(unread, &info) == 0 && (info.st_mode & 07777) == 0642, "mode %o", info.st_mode);
    int reader = open_end("unread", O_RDONLY | O_NONBLOCK);
    CHECK(waiting_bytes(reader) == 6 && read(reader, found, 10) == 6 && memcmp(found, "unread", 6) == 0, "unread data");
    CHECK(write(unread, "unread", 6) == 6, "putting it back");
    close(reader);

    CHECK(events_of(early) == 0, "a reader that never had a writer: %#x", events_of(early));
    CHECK((fcntl(early, F_GETFL) & O_NONBLOCK) == 0 && read(early, found, 1) == 0, "a reader that never had a writer");
    CHECK(waiting_bytes(left) == 4 && events_of(left) == (POLLIN | POLLHUP), "a reader without writers: %#x",
          events_of(left));
    CHECK(read(left, found, 10) == 4 && memcmp(found, "left", 4) == 0 && read(left, found, 1) == 0, "what was left");
    late = open_end("late", O_RDWR);
    CHECK(write(late, "left", 4) == 4, "putting it back");
    close(late);

    CHECK(fcntl(second_name, F_GETPIPE_SZ) == kLargeBytes, "the size is %d", fcntl(second_name, F_GETPIPE_SZ));
    CHECK(waiting_bytes(second_name) == kLargeBytes, "%d bytes in the large one", waiting_bytes(second_name));
    for (int have = 0; have < kLargeBytes;) {
      ssize_t got = read(second_name, found + have, (size_t)(kLargeBytes - have));
      CHECK(got > 0, "read from the large one");
      if (got <= 0) break;
      have += (int)got;
    }
    CHECK(memcmp(found, wanted, kLargeBytes) == 0, "contents of the large one");
    CHECK(write(large, wanted, kLargeBytes) == kLargeBytes, "putting it back");

    CHECK((fcntl(packet_writer, F_GETFL) & O_DIRECT) != 0 && (fcntl(packet_reader, F_GETFL) & O_NONBLOCK) != 0 &&
              (fcntl(other_reader, F_GETFL) & O_NONBLOCK) == 0,
          "flags of the ends");
    CHECK(read(packet_reader, found, 20) == 3 && read(duplicate, found, 20) == 7, "bounds of packets");
    CHECK(write(packet_writer, "one", 3) == 3 && write(packet_writer, "two two", 7) == 7, "putting them back");
    CHECK((fcntl(name_only, F_GETFL) & O_PATH) != 0 && fstat(name_only, &info) == 0 && S_ISFIFO(info.st_mode),
          "the name alone");

    int before = got_data;
    CHECK(write(data, "\1\1\1", 3) == 3 && WAIT_UNTIL(got_data == before + 3), "the waiting reader has %d", got_data);
    CHECK(got_open == 0, "the task that waits for a reader goes on: %d", got_open);
    if (!subject_last) continue;
    int nobody = open_end("nobody", O_RDONLY | O_NONBLOCK);
    CHECK(WAIT_UNTIL(got_open == 1), "the task that waits for a reader has %d", got_open);
    close(nobody);
  }
  return subject_status();
}
