// Threads blocked in read on an empty pipe and in write on a full one: the calls go on as if nothing happened.
#include <pthread.h>

#include "subject.h"

static int empty_pipe[2], full_pipe[2];
static volatile int reads, writes, surprises;
static volatile char last_byte;

static void* reader(void* unused) {
  for (;;) {
    char byte;
    if (read(empty_pipe[0], &byte, 1) != 1) {
      surprises++;
      continue;
    }
    last_byte = byte;
    reads++;
  }
  return unused;
}
static void* writer(void* unused) {
  static char block[kPageBytes];
  for (;;) {
    if (write(full_pipe[1], block, sizeof block) != sizeof block) surprises++;
    writes++;
  }
  return unused;
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  REQUIRE(pipe(empty_pipe) == 0 && pipe(full_pipe) == 0);
  pthread_t thread;
  REQUIRE(pthread_create(&thread, NULL, reader, NULL) == 0 && pthread_create(&thread, NULL, writer, NULL) == 0);
  REQUIRE(WAIT_UNTIL(writes == 16));  // 64 KiB fill the pipe
  sleep_ms(20);

  int round = 0;
  for (subject_ready(); subject_next(); subject_verdict()) {
    round++;
    CHECK(surprises == 0, "%d calls ended early (EINTR?)", surprises);
    CHECK(reads == round - 1 && writes == 15 + round, "%d reads and %d writes went through", reads, writes);
    char byte = (char)('a' + round);
    CHECK(write(empty_pipe[1], &byte, 1) == 1, "write to the empty pipe");
    CHECK(WAIT_UNTIL(reads == round) && last_byte == byte, "the reader does not get its byte");
    char block[kPageBytes];
    CHECK(read(full_pipe[0], block, sizeof block) == sizeof block, "read from the full pipe");
    CHECK(WAIT_UNTIL(writes == 16 + round), "the writer does not go on");
    sleep_ms(20);
  }
  return subject_status();
}
