// epoll: many targets in two tasks, data and events, nested, registered under numbers that are closed, used again or
// duplicated, one shot, edges, and a signalfd.
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>

#include "subject.h"

enum { kMany = 250 };
static const uint64_t kData = 0x1122334455667788;

static void watch(int poll, int fd, uint32_t events, uint64_t data) {
  struct epoll_event event = {.events = events, .data = {.u64 = data}};
  REQUIRE(epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event) == 0);
}
static int pipe_end(int* writer) {
  int ends[2];
  REQUIRE(pipe2(ends, O_NONBLOCK) == 0);
  *writer = ends[1];
  return ends[0];
}
static void expect(int poll, uint64_t data, uint32_t events, const char* what) {
  struct epoll_event got[2] = {{0}};
  int count = epoll_wait(poll, got, 2, 1000);
  CHECK(count == 1 && got[0].data.u64 == data && got[0].events == events, "%s: %d events, data %lx, events %x", what,
        count, (unsigned long)got[0].data.u64, got[0].events);
}
static void expect_nothing(int poll, const char* what) {
  struct epoll_event got = {0};
  CHECK(epoll_wait(poll, &got, 1, 0) == 0, "%s: data %lx, events %x", what, (unsigned long)got.data.u64, got.events);
}
static void pass(int writer, int reader) {
  char byte = 'x';
  REQUIRE(write(writer, &byte, 1) == 1);
  (void)reader;
}
static void drain(int reader) {
  char bytes[64];
  while (read(reader, bytes, sizeof bytes) > 0) {
  }
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  // Two that watch the same pipes, one of them edges only.
  int many = epoll_create1(EPOLL_CLOEXEC), edges = epoll_create1(0), readers[kMany], writers[kMany];
  for (int i = 0; i < kMany; i++) {
    readers[i] = pipe_end(&writers[i]);
    watch(many, readers[i], EPOLLIN, kData + (uint64_t)i);
    watch(edges, readers[i], EPOLLIN | EPOLLET, (uint64_t)i);
  }
  // Nested; the inner one is registered under a number that is closed now.
  int outer = epoll_create1(0), other = dup(many);
  watch(outer, other, EPOLLIN, 77);
  close(other);
  // The same file twice; one of the numbers means something else by now.
  int tricky = epoll_create1(0), writer, reader = pipe_end(&writer), second = dup(reader), replaced = second;
  watch(tricky, reader, EPOLLIN, 1);
  watch(tricky, second, EPOLLIN, 2);
  REQUIRE(dup2(writer, replaced) == replaced);
  // Two files under one number.
  int crowded = epoll_create1(0), first_writer, first = pipe_end(&first_writer), kept = dup(first);
  watch(crowded, first, EPOLLIN, 10);
  int later_writer, later = pipe_end(&later_writer);
  REQUIRE(dup2(later, first) == first);
  watch(crowded, first, EPOLLIN, 20);
  // Once only, and not yet.
  int once = epoll_create1(0), counter = eventfd(0, EFD_NONBLOCK);
  watch(once, counter, EPOLLIN | EPOLLONESHOT, 5);
  // Signals of whoever waits.
  int signals = epoll_create1(0);
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, SIGUSR2);
  REQUIRE(sigprocmask(SIG_BLOCK, &mask, NULL) == 0);
  int signal_fd = signalfd(-1, &mask, SFD_NONBLOCK);
  watch(signals, signal_fd, EPOLLIN, 9);

  for (subject_ready(); subject_next(); subject_verdict()) {
    expect_nothing(many, "many");
    for (int i = 0; i < kMany; i += 83) {
      pass(writers[i], readers[i]);
      expect(many, kData + (uint64_t)i, EPOLLIN, "one of many");
      expect(edges, (uint64_t)i, EPOLLIN, "an edge");
      expect_nothing(edges, "an edge twice");
      expect(outer, 77, EPOLLIN, "nested");
      drain(readers[i]);
    }
    expect_nothing(outer, "nested");
    pass(writer, reader);
    struct epoll_event got[3];
    CHECK(epoll_wait(tricky, got, 3, 1000) == 2 && got[0].data.u64 + got[1].data.u64 == 3, "the same file twice");
    drain(reader);
    pass(first_writer, kept);
    expect(crowded, 10, EPOLLIN, "the first file of a number");
    drain(kept);
    pass(later_writer, later);
    expect(crowded, 20, EPOLLIN, "the second file of a number");
    drain(later);
    // The key of a registration is its number of old.
    struct epoll_event event = {.events = EPOLLIN, .data = {.u64 = 21}};
    CHECK(epoll_ctl(crowded, EPOLL_CTL_MOD, first, &event) == 0, "the number is not registered");
    pass(later_writer, later);
    expect(crowded, 21, EPOLLIN, "the second file of a number, changed");
    drain(later);
    event.data.u64 = 20;
    REQUIRE(epoll_ctl(crowded, EPOLL_CTL_MOD, first, &event) == 0);

    REQUIRE(eventfd_write(counter, 1) == 0);
    expect(once, 5, EPOLLIN, "once");
    expect_nothing(once, "once, again");
    eventfd_t value;
    REQUIRE(eventfd_read(counter, &value) == 0);
    event = (struct epoll_event){.events = EPOLLIN | EPOLLONESHOT, .data = {.u64 = 5}};
    CHECK(epoll_ctl(once, EPOLL_CTL_MOD, counter, &event) == 0, "once more");

    // Somebody must be waked up who waits already.
    pid_t self = getpid(), helper = fork();
    if (helper == 0) {
      sleep_ms(20);
      kill(self, SIGUSR2);
      _exit(0);
    }
    expect(signals, 9, EPOLLIN, "a signal");
    struct signalfd_siginfo info;
    CHECK(read(signal_fd, &info, sizeof info) == sizeof info && info.ssi_signo == SIGUSR2, "the signal");
    REQUIRE(waitpid(helper, NULL, 0) == helper);
  }
  return subject_status();
}
