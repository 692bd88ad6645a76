// eventfd, signalfd, timerfd: state, flags, sharing by dup and fork.
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

#include "subject.h"

static const double kSlow_s = 500, kExact_s = 0.05;

static double now_s(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}
static struct timespec span(double s) {
  return (struct timespec){(time_t)s, (long)((s - (double)(time_t)s) * 1e9)};
}
static int timer(clockid_t clock, int flags, double value_s, double interval_s) {
  int fd = timerfd_create(clock, TFD_NONBLOCK);
  struct itimerspec times = {span(interval_s), span(value_s)};
  REQUIRE(fd >= 0 && timerfd_settime(fd, flags, &times, NULL) == 0);
  return fd;
}
static double left_s(int fd) {
  struct itimerspec times;
  CHECK(timerfd_gettime(fd, &times) == 0, "timerfd %d", fd);
  return (double)times.it_value.tv_sec + (double)times.it_value.tv_nsec * 1e-9;
}
static uint64_t take(int fd) {
  uint64_t value = 0;
  return read(fd, &value, sizeof value) == sizeof value ? value : 0;
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  // One counter of two tasks, one semaphore, one counter that is full.
  int shared = eventfd(5, EFD_NONBLOCK), semaphore = eventfd(3, EFD_NONBLOCK | EFD_SEMAPHORE);
  int again = dup(shared), full = eventfd(0, EFD_NONBLOCK);
  REQUIRE(shared >= 0 && semaphore >= 0 && again >= 0 && eventfd_write(full, UINT64_MAX - 1) == 0);

  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, SIGUSR1);
  sigaddset(&mask, SIGRTMIN + 4);
  REQUIRE(sigprocmask(SIG_BLOCK, &mask, NULL) == 0);
  int signals = signalfd(-1, &mask, SFD_NONBLOCK);
  REQUIRE(signals >= 0 && kill(getpid(), SIGUSR1) == 0);

  double armed = now_s(CLOCK_MONOTONIC), booted = now_s(CLOCK_BOOTTIME), wall = now_s(CLOCK_REALTIME);
  int slow = timer(CLOCK_MONOTONIC, 0, kSlow_s, 7), at_boot = timer(CLOCK_BOOTTIME, TFD_TIMER_ABSTIME, booted + kSlow_s, 0);
  int at_wall = timer(CLOCK_REALTIME, TFD_TIMER_ABSTIME, wall + kSlow_s, 0);
  int fast = timer(CLOCK_MONOTONIC, 0, 0.001, 0.02), once = timer(CLOCK_MONOTONIC, 0, 0.001, 0);
  double fast_from = now_s(CLOCK_MONOTONIC);

  int question = eventfd(0, 0), answer = eventfd(0, EFD_NONBLOCK);
  REQUIRE(question >= 0 && answer >= 0);
  pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    // Waits in a read.
    uint64_t number = 0;
    while (read(question, &number, sizeof number) == sizeof number) eventfd_write(answer, 2 * number);
    _exit(1);
  }

  for (subject_ready(); subject_next(); subject_verdict()) {
    CHECK(take(shared) == 5 && take(again) == 0, "the counter that was duplicated");
    REQUIRE(eventfd_write(again, 5) == 0);
    CHECK(eventfd_write(full, 1) != 0 && errno == EAGAIN, "the full counter takes more");
    struct signalfd_siginfo info;
    CHECK(read(signals, &info, sizeof info) == sizeof info && info.ssi_signo == SIGUSR1, "the queued signal");
    CHECK(read(signals, &info, sizeof info) == -1 && errno == EAGAIN, "one more signal");
    REQUIRE(kill(getpid(), SIGUSR1) == 0);

    double late = left_s(slow) - (armed + kSlow_s - now_s(CLOCK_MONOTONIC));
    CHECK(late > -kExact_s && late < kExact_s, "the monotonic timer is %.4f s late", late);
    late = left_s(at_boot) - (booted + kSlow_s - now_s(CLOCK_BOOTTIME));
    CHECK(late > -kExact_s && late < kExact_s, "the timer since boot is %.4f s late", late);
    late = left_s(at_wall) - (wall + kSlow_s - now_s(CLOCK_REALTIME));
    CHECK(late > -kExact_s && late < kExact_s, "the timer of the real-time clock is %.4f s late", late);
    struct itimerspec times;
    CHECK(timerfd_gettime(slow, &times) == 0 && times.it_interval.tv_sec == 7, "its interval");
    CHECK(WAIT_UNTIL(now_s(CLOCK_MONOTONIC) > fast_from + 0.05), "time stands still");
    uint64_t most = (uint64_t)((now_s(CLOCK_MONOTONIC) - fast_from) / 0.02) + 2, ticks = take(fast);
    CHECK(ticks + 3 >= most && ticks <= most + 1, "%lu ticks instead of %lu", (unsigned long)ticks, (unsigned long)most);
    CHECK(take(once) == 1 && take(once) == 0 && left_s(once) == 0, "the timer that went off once");
    times = (struct itimerspec){{0, 0}, span(0.001)};
    REQUIRE(timerfd_settime(once, 0, &times, NULL) == 0);
    times = (struct itimerspec){span(0.02), span(0.001)};
    fast_from = now_s(CLOCK_MONOTONIC);
    REQUIRE(timerfd_settime(fast, 0, &times, NULL) == 0);
    CHECK(WAIT_UNTIL(left_s(once) == 0), "the timer does not go off");
    REQUIRE(eventfd_write(question, 21) == 0);
    struct pollfd told = {.fd = answer, .events = POLLIN};
    CHECK(poll(&told, 1, 5000) == 1 && take(answer) == 42, "the child gives no answer");
    CHECK(take(semaphore) == 1 && eventfd_write(semaphore, 1) == 0, "the semaphore");
  }
  kill(child, SIGKILL);
  return subject_status();
}
