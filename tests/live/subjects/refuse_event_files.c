// Descriptors of anonymous inodes: epoll with a registration, eventfd with a count, timerfd, signalfd, inotify.
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

#include "subject.h"

int main(int argc, char** argv) {
  subject_start(argc, argv);
  int counter = eventfd(7, EFD_NONBLOCK), poller = epoll_create1(0), timer = timerfd_create(CLOCK_MONOTONIC, 0);
  int watch = inotify_init1(IN_NONBLOCK);
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, SIGUSR1);
  int signals = signalfd(-1, &mask, SFD_NONBLOCK);
  struct epoll_event event = {.events = EPOLLIN, .data = {.u64 = 0x1122334455667788}};
  struct itimerspec later = {{3, 0}, {1000, 0}};
  REQUIRE(counter >= 0 && signals >= 0 && epoll_ctl(poller, EPOLL_CTL_ADD, counter, &event) == 0);
  REQUIRE(timerfd_settime(timer, 0, &later, NULL) == 0 && mkdir(subject_path("watched"), 0700) == 0);
  int descriptor = inotify_add_watch(watch, subject_path("watched"), IN_CREATE);
  REQUIRE(descriptor > 0);
  for (subject_ready(); subject_next(); subject_verdict()) {
    struct epoll_event got = {0};
    CHECK(epoll_wait(poller, &got, 1, 0) == 1 && got.data.u64 == 0x1122334455667788, "epoll");
    uint64_t count = 0;
    CHECK(read(counter, &count, 8) == 8 && count == 7 && write(counter, &count, 8) == 8, "eventfd holds %lu",
          (unsigned long)count);
    struct itimerspec left;
    CHECK(timerfd_gettime(timer, &left) == 0 && left.it_interval.tv_sec == 3 && left.it_value.tv_sec > 900, "timerfd");
    struct signalfd_siginfo info;
    CHECK(read(signals, &info, sizeof info) == -1 && errno == EAGAIN, "signalfd");
    char events[256];
    CHECK(read(watch, events, sizeof events) == -1 && errno == EAGAIN, "inotify has an event of its own");
    mkdir(subject_path("watched/x"), 0700);
    CHECK(read(watch, events, sizeof events) > 0 && ((struct inotify_event*)(void*)events)->wd == descriptor,
          "inotify");
    rmdir(subject_path("watched/x"));
  }
  return subject_status();
}
