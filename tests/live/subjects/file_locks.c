// File locks of every kind, by fdinfo and by attempts that conflict: record locks of two processes, also of one that
// maps the file; locks of descriptions, duplicated and inherited; flock that only a child holds; and tasks that wait.
#include <pthread.h>
#include <sys/file.h>
#include <sys/mman.h>

#include "subject.h"

static int open_file(const char* name) {
  int fd = open(subject_path(name), O_RDWR | O_CREAT, 0600);
  REQUIRE(fd >= 0 && ftruncate(fd, 4096) == 0);
  return fd;
}
static int ranged(int fd, int command, short type, off_t start, off_t bytes) {
  struct flock range = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = bytes};
  return fcntl(fd, command, &range);
}
// The owner of what is in the way of a write lock: 0 nobody, -1 a description.
static pid_t in_the_way(int fd, off_t at) {
  struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};
  REQUIRE(fcntl(fd, F_OFD_GETLK, &range) == 0);
  return range.l_type == F_UNLCK ? 0 : range.l_pid;
}
static bool shows(int fd, const char* what) {
  char text[4096], path[64];
  snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
  return subject_read_file(path, text, sizeof text) > 0 && strstr(text, what) != NULL;
}
static bool can_flock(const char* name, int how) {
  int fd = open(subject_path(name), O_RDWR);
  bool can = flock(fd, how | LOCK_NB) == 0;
  close(fd);
  return can;
}

static volatile int got_record, got_flock;
static void* waits_for_record(void* fd) {
  got_record = ranged(*(int*)fd, F_OFD_SETLKW, F_WRLCK, 0, 0) == 0 ? 1 : -1;
  return NULL;
}
static void* waits_for_flock(void* fd) {
  got_flock = flock(*(int*)fd, LOCK_EX) == 0 ? 1 : -1;
  return NULL;
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  int record = open_file("record"), twice = open_file("record"), probe = open_file("record");
  REQUIRE(ranged(record, F_SETLK, F_WRLCK, 10, 20) == 0 && ranged(record, F_SETLK, F_RDLCK, 100, 0) == 0);
  REQUIRE(ranged(twice, F_SETLK, F_WRLCK, 50, 1) == 0);
  int mapped = open_file("mapped");
  REQUIRE(ranged(mapped, F_SETLK, F_WRLCK, 0, 0) == 0);
  char* page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, mapped, 0);
  REQUIRE(page != MAP_FAILED);
  int mapped_probe = open_file("mapped");  // opened by the child's table, too

  int description = open_file("description"), duplicate = dup(description), other = open_file("description");
  REQUIRE(ranged(description, F_OFD_SETLK, F_WRLCK, 5, 5) == 0 && ranged(other, F_OFD_SETLK, F_RDLCK, 20, 10) == 0);
  int shared = open_file("shared"), exclusive = open_file("exclusive"), unlocked = open_file("exclusive");
  REQUIRE(flock(shared, LOCK_SH) == 0 && flock(exclusive, LOCK_EX) == 0);
  int of_child = open_file("child");
  int contended = open_file("contended"), waiter = open_file("contended");
  REQUIRE(ranged(contended, F_OFD_SETLK, F_WRLCK, 0, 0) == 0 && flock(contended, LOCK_SH) == 0);
  pthread_t thread;
  REQUIRE(pthread_create(&thread, NULL, waits_for_record, &waiter) == 0);
  REQUIRE(pthread_create(&thread, NULL, waits_for_flock, &waiter) == 0);

  pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    // A record lock of its own, and a lock that its parent does not have any more.
    REQUIRE(ranged(record, F_SETLK, F_WRLCK, 60, 10) == 0 && flock(of_child, LOCK_EX) == 0);
    subject_write_file("up", "up\n");
    while (subject_next()) {
      CHECK(shows(record, "POSIX  ADVISORY  WRITE") && shows(of_child, "FLOCK  ADVISORY  WRITE"), "locks of the child");
      subject_part("child");
    }
    if (!WAIT_UNTIL(access(subject_path("done"), F_OK) == 0)) _exit(1);  // its locks go with it
    _exit(subject_status());
  }
  REQUIRE(WAIT_UNTIL(access(subject_path("up"), F_OK) == 0));
  close(of_child);
  sleep_ms(50);

  for (subject_ready(); subject_next(); subject_verdict()) {
    CHECK(in_the_way(probe, 10) == getpid() && in_the_way(probe, 29) == getpid() && in_the_way(probe, 100) == getpid() &&
              in_the_way(probe, 1 << 30) == getpid() && in_the_way(probe, 50) == getpid(),
          "record locks");
    CHECK(in_the_way(probe, 9) == 0 && in_the_way(probe, 30) == 0 && in_the_way(probe, 99) == 0, "more than was locked");
    CHECK(in_the_way(probe, 60) == child && in_the_way(probe, 69) == child && in_the_way(probe, 70) == 0,
          "the record lock of the child belongs to %d", in_the_way(probe, 60));
    CHECK(in_the_way(mapped_probe, 0) == getpid() && page[0] == 0, "the lock on the mapped file");
    CHECK(in_the_way(other, 5) == -1 && in_the_way(other, 4) == 0 && in_the_way(other, 10) == 0, "description");
    CHECK(in_the_way(description, 20) == -1 && in_the_way(description, 5) == 0 && in_the_way(duplicate, 5) == 0,
          "the other description");
    CHECK(can_flock("shared", LOCK_SH) && !can_flock("shared", LOCK_EX) && !can_flock("exclusive", LOCK_SH), "flock");
    CHECK(shows(exclusive, "FLOCK  ADVISORY  WRITE") && !shows(unlocked, "lock:"), "who has flock");
    CHECK(!can_flock("child", LOCK_SH), "the lock that the child holds");
    CHECK(got_record == 0 && got_flock == 0, "the waiting tasks have %d and %d", got_record, got_flock);
    if (subject_last) {
      REQUIRE(ranged(contended, F_OFD_SETLK, F_UNLCK, 0, 0) == 0 && flock(contended, LOCK_UN) == 0);
      CHECK(WAIT_UNTIL(got_record == 1 && got_flock == 1), "the waiting tasks have %d and %d", got_record, got_flock);
    }
    subject_collect("child");
    if (subject_last) subject_write_file("done", "done\n");
    subject_join(child);
  }
  return subject_status();
}
