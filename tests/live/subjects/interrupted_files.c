// Waits for files that the kernel ends with EINTR when a task is stopped: epoll in its forms, and a receive with a
// limit of the socket. Nothing may have happened to their callers, whether the checkpoint is made or refused.
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "subject.h"

enum { kWaitMs = 3000, kBeforeMs = 1500, kToleranceMs = 500 };

static int watched[2], never[2], sockets[2];
static int epoll_watched, epoll_never;

static int wait_epoll(void) {
  struct epoll_event event;
  return epoll_wait(epoll_watched, &event, 1, -1) == 1 ? 0 : errno;
}
static int wait_epoll_with_mask(void) {
  struct epoll_event event;
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR2);
  return epoll_pwait(epoll_watched, &event, 1, -1, &set) == 1 ? 0 : errno;
}
static int limited_epoll(void) {
  struct epoll_event event;
  return epoll_wait(epoll_never, &event, 1, kWaitMs) == 0 ? 0 : errno;
}
static int limited_epoll_with_mask(void) {
  struct epoll_event event;
  sigset_t set;
  sigemptyset(&set);
  return epoll_pwait(epoll_never, &event, 1, kWaitMs, &set) == 0 ? 0 : errno;
}
static int limited_epoll_2(void) {
  struct epoll_event events[4];
  struct timespec most = {kWaitMs / 1000, kWaitMs % 1000 * 1000000l};
  return syscall(SYS_epoll_pwait2, epoll_never, events, 4, &most, NULL, 8ul) == 0 ? 0 : errno;
}
static int limited_receive(void) {
  char byte;
  return recv(sockets[0], &byte, 1, 0) < 0 && errno == EAGAIN ? 0 : errno;
}

static struct waiter {
  const char* name;
  int (*wait)(void);
  bool limited;
  double most_s;
  volatile int begun, done, error;
  volatile double took_s;
} waiters[] = {
    {.name = "epoll_wait", .wait = wait_epoll},
    {.name = "epoll_pwait", .wait = wait_epoll_with_mask},
    {.name = "epoll_wait with a limit", .wait = limited_epoll, .limited = true, .most_s = kWaitMs / 1000.0},
    {.name = "epoll_pwait with a limit", .wait = limited_epoll_with_mask, .limited = true, .most_s = kWaitMs / 1000.0},
    {.name = "epoll_pwait2 with a limit", .wait = limited_epoll_2, .limited = true, .most_s = kWaitMs / 1000.0},
    // The limit is the socket's: the call begins again as a whole.
    {.name = "recv with SO_RCVTIMEO", .wait = limited_receive, .limited = true, .most_s = 2 * kWaitMs / 1000.0},
};
enum { kWaiters = sizeof waiters / sizeof *waiters };
static volatile int round_number;

static void* waiting(void* argument) {
  struct waiter* w = argument;
  for (int next = 1;; next++) {
    while (round_number < next) sleep_ms(1);
    double begun_s = clock_s(CLOCK_MONOTONIC);
    w->begun = next;
    w->error = w->wait();
    w->took_s = clock_s(CLOCK_MONOTONIC) - begun_s;
    w->done = next;
  }
  return NULL;
}

static void begin_round(void) {
  round_number++;
  for (int i = 0; i < kWaiters; i++) REQUIRE(WAIT_UNTIL(waiters[i].begun == round_number));
  sleep_ms(kBeforeMs);
}

static int epoll_on(int fd) {
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event event = {.events = EPOLLIN};
  REQUIRE(epoll >= 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0);
  return epoll;
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  struct timeval limit = {kWaitMs / 1000, kWaitMs % 1000 * 1000};
  REQUIRE(pipe(watched) == 0 && pipe(never) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) == 0);
  REQUIRE(setsockopt(sockets[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0);
  epoll_watched = epoll_on(watched[0]);
  epoll_never = epoll_on(never[0]);
  for (int i = 0; i < kWaiters; i++) {
    pthread_t thread;
    REQUIRE(pthread_create(&thread, NULL, waiting, &waiters[i]) == 0);
  }
  begin_round();
  for (subject_ready(); subject_next(); subject_verdict()) {
    for (int i = 0; i < kWaiters; i++)
      if (!waiters[i].limited)
        CHECK(waiters[i].done < round_number, "%s ended by itself (%d)", waiters[i].name, waiters[i].error);
    char byte = 'x';
    CHECK(write(watched[1], &byte, 1) == 1, "write");
    for (int i = 0; i < kWaiters; i++) {
      struct waiter* w = &waiters[i];
      CHECK(WAIT_UNTIL(w->done == round_number) && w->error == 0, "%s: done %d, error %d", w->name, w->done, w->error);
      if (!w->limited) continue;
      CHECK(w->took_s > kWaitMs / 1000.0 - 0.002, "%s took only %.3f s", w->name, w->took_s);
      CHECK(w->took_s < w->most_s + kToleranceMs / 1000.0, "%s took %.3f s", w->name, w->took_s);
    }
    CHECK(read(watched[0], &byte, 1) == 1, "read");
    if (!subject_last) begin_round();
  }
  return subject_status();
}
