// eventfd, signalfd, timerfd: dumped from and restored into this process.
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>

#include "base/nanoseconds.h"
#include "objects/files/eventfd.h"
#include "objects/files/pidfd.h"
#include "objects/files/signalfd.h"
#include "objects/files/test_support.h"
#include "objects/files/timerfd.h"

namespace stasis {
namespace {

using test::view_of;

// Through the messages; returns the restored file.
template <class Kind>
class Carrier {
 public:
  Fd carry(int fd) {
    const FileView view = view_of(fd, 7);
    EXPECT_TRUE(Kind::match(view));
    Kind::dump(view, dump_files, shared, dumped);
    pb::file_entry entry;
    Kind::encode(dumped, entry);
    EXPECT_EQ(entry.id(), 7u);
    Kind::decode(entry, restored);
    if constexpr (requires { &Kind::encode_extension; }) {
      pb::extension_file extension;
      Kind::encode_extension(dumped, extension);
      Kind::decode_extension(extension, restored);
    }
    EXPECT_EQ(restored, dumped);
    Fd made = Kind::create(restored, restore_files, shared);
    Kind::finish(restored, made.get(), restore_files, shared);
    EXPECT_EQ(view_of(made.get()).link, view.link);
    EXPECT_EQ(view_of(made.get()).flags, view.flags);
    return made;
  }
  DumpOptions dump_options;
  RestoreOptions restore_options;
  test::LooseDump dump_files{dump_options};
  RestoreFiles restore_files{restore_options};
  typename Kind::State dumped, restored;
  typename Kind::Shared shared;
};

// ---- eventfd ---------------------------------------------------------------------------------------------

class EventFds : public testing::TestWithParam<std::tuple<uint64_t, int>> {};

TEST_P(EventFds, CounterAndSemaphore) {
  const auto [counter, flags] = GetParam();
  const Fd fd(::eventfd(0, flags));
  ASSERT_TRUE(counter == 0 || ::eventfd_write(fd.get(), counter) == 0);
  Carrier<EventFd> carrier;
  const Fd copy = carrier.carry(fd.get());
  EXPECT_EQ(carrier.dumped.counter, counter);
  EXPECT_EQ(carrier.dumped.semaphore, (flags & EFD_SEMAPHORE) != 0);
  // Where fdinfo does not tell.
  EXPECT_EQ(EventFd::try_semaphore(fd.get(), counter), carrier.dumped.semaphore);
  for (const Fd* file : {&fd, &copy}) {
    eventfd_t got = 0;
    ASSERT_EQ(::eventfd_write(file->get(), 1), 0);
    ASSERT_EQ(::eventfd_read(file->get(), &got), 0);
    EXPECT_EQ(got, (flags & EFD_SEMAPHORE) != 0 ? 1 : counter + 1);
  }
}
INSTANTIATE_TEST_SUITE_P(Counters, EventFds,
                         testing::Combine(testing::Values(0, 1, 2, 3, 1000, UINT64_MAX - 3),
                                          testing::Values(0, EFD_SEMAPHORE, EFD_NONBLOCK | EFD_SEMAPHORE)));

TEST(EventFdImages, ACounterThatCannotBe) {
  pb::file_entry entry;
  EventFd::encode({.counter = UINT64_MAX}, entry);
  EventFd::State state;
  EXPECT_EQ(error_of([&] { EventFd::decode(entry, state); }).reason(), Reason::IMAGE_CORRUPT);
}

// ---- signalfd --------------------------------------------------------------------------------------------

TEST(SignalFds, TheSignals) {
  sigset_t set;
  sigemptyset(&set);
  for (int s : {SIGHUP, SIGUSR1, SIGRTMIN, SIGRTMAX}) sigaddset(&set, s);
  const Fd fd(::signalfd(-1, &set, SFD_NONBLOCK));
  Carrier<SignalFd> carrier;
  const Fd copy = carrier.carry(fd.get());
  const uint64_t wanted = 1 | uint64_t{1} << (SIGUSR1 - 1) | uint64_t{1} << (SIGRTMIN - 1) | uint64_t{1} << 63;
  EXPECT_EQ(carrier.dumped.signals, wanted);
  EXPECT_EQ(fdinfo_number(own_fdinfo(copy.get()), "sigmask", 16), wanted);
}

// ---- pidfd -----------------------------------------------------------------------------------------------

TEST(PidFds, ThisProcessAndDeadOnes) {
  const Fd self(static_cast<int>(::syscall(SYS_pidfd_open, ::getpid(), O_NONBLOCK)));
  Carrier<PidFd> carrier;
  carrier.dump_files.tree_pids = {::getpid()};
  EXPECT_EQ(view_of(carrier.carry(self.get()).get()).st.st_ino, view_of(self.get()).st.st_ino);
  EXPECT_EQ(carrier.dumped.pid, ::getpid());

  for (const int status : {0, 7 << 8, int{SIGTERM}}) {
    const pid_t child = ::fork();
    if (child == 0) {
      if (WIFSIGNALED(status)) ::raise(WTERMSIG(status));
      ::_exit(WEXITSTATUS(status));
    }
    const Fd fd(static_cast<int>(::syscall(SYS_pidfd_open, child, 0)));
    int seen = -1;
    ASSERT_EQ(::waitpid(child, &seen, 0), child);
    ASSERT_EQ(seen, status);
    Carrier<PidFd> dead;
    const Fd copy = dead.carry(fd.get());
    EXPECT_EQ(dead.dumped.pid, -1);
    EXPECT_EQ(dead.dumped.exit_code.value_or(status), status);
    PidFd::complete(dead.restore_files, dead.shared);
    EXPECT_NE(own_fdinfo(copy.get()).find("Pid:\t-1"), std::string::npos);
    // Its end is what another dump would find.
    Carrier<PidFd> next;
    const Fd last = next.carry(copy.get());
    EXPECT_EQ(next.dumped.exit_code, dead.dumped.exit_code);
  }
}

TEST(PidFds, OfAnotherProcessIsRefused) {
  const Fd parent(static_cast<int>(::syscall(SYS_pidfd_open, ::getppid(), 0)));
  Carrier<PidFd> carrier;
  const Error error = error_of([&] { carrier.carry(parent.get()); });
  EXPECT_EQ(error.reason(), Reason::UNSUPPORTED_FILE);
  EXPECT_NE(error.what_failed().find(fmt::format("pid {}", ::getppid())), std::string::npos);
}

// ---- timerfd ---------------------------------------------------------------------------------------------

Fd timer(int clock, int flags, timespec value, timespec interval) {
  Fd fd(::timerfd_create(clock, TFD_NONBLOCK));
  const itimerspec times{interval, value};
  EXPECT_EQ(::timerfd_settime(fd.get(), flags, &times, nullptr), 0);
  return fd;
}
double left_s(const Fd& fd) {
  itimerspec times{};
  EXPECT_EQ(::timerfd_gettime(fd.get(), &times), 0);
  return static_cast<double>(times.it_value.tv_sec) + static_cast<double>(times.it_value.tv_nsec) * 1e-9;
}

TEST(TimerFds, WhatIsLeft) {
  for (int clock : {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME}) {
    const Fd fd = timer(clock, 0, {100, 0}, {3, 500});
    Carrier<TimerFd> carrier;
    const Fd copy = carrier.carry(fd.get());
    EXPECT_EQ(carrier.dumped.clock, clock);
    EXPECT_EQ(carrier.dumped.interval_ns, 3'000'000'500u);
    EXPECT_NEAR(left_s(copy), left_s(fd), 0.05);
    EXPECT_FALSE(carrier.dumped.expires_at_ns);
  }
}

TEST(TimerFds, TheClocksOfTheImageCount) {
  const Fd fd = timer(CLOCK_MONOTONIC, 0, {100, 0}, {0, 0});
  Carrier<TimerFd> carrier;
  carrier.dump_files.clocks_read_at_ns = now_ns(CLOCK_MONOTONIC) - 2'000'000'000;  // 102 s were left then
  carrier.restore_files.clocks_began_at_ns = now_ns(CLOCK_MONOTONIC) - 5'000'000'000;
  EXPECT_NEAR(left_s(carrier.carry(fd.get())), 97, 0.05);
}

TEST(TimerFds, ExpiriesOfTheRestoreAreCounted) {
  const Fd fd = timer(CLOCK_MONOTONIC, 0, {10, 0}, {4, 0});
  Carrier<TimerFd> carrier;
  carrier.restore_files.clocks_began_at_ns = now_ns(CLOCK_MONOTONIC) - 21'000'000'000;  // after 10, 14, 18 s
  const Fd copy = carrier.carry(fd.get());
  uint64_t ticks = 0;
  EXPECT_EQ(::read(copy.get(), &ticks, sizeof ticks), 8);
  EXPECT_EQ(ticks, 3u);
  EXPECT_NEAR(left_s(copy), 1, 0.05);
}

TEST(TimerFds, AnAbsoluteTime) {
  const uint64_t at = now_ns(CLOCK_REALTIME) / 1'000'000'000 + 50;
  const Fd fd =
      timer(CLOCK_REALTIME, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, {static_cast<time_t>(at), 0}, {0, 0});
  Carrier<TimerFd> carrier;
  carrier.restore_files.clocks_began_at_ns = now_ns(CLOCK_MONOTONIC) - 5'000'000'000;
  const Fd copy = carrier.carry(fd.get());
  ASSERT_TRUE(carrier.dumped.expires_at_ns);
  EXPECT_NEAR(static_cast<double>(*carrier.dumped.expires_at_ns) * 1e-9, static_cast<double>(at), 0.01);
  EXPECT_NEAR(left_s(copy), left_s(fd), 0.05);
  EXPECT_EQ(fdinfo_number(own_fdinfo(copy.get()), "settime flags", 8), 3u);

  const Fd other = timer(CLOCK_MONOTONIC, TFD_TIMER_ABSTIME,
                         {static_cast<time_t>(now_ns(CLOCK_MONOTONIC) / 1'000'000'000 + 50), 0}, {0, 0});
  Carrier<TimerFd> relative;
  relative.restore_files.clocks_began_at_ns = now_ns(CLOCK_MONOTONIC) - 5'000'000'000;
  EXPECT_NEAR(left_s(relative.carry(other.get())), left_s(other) - 5, 0.05);
}

TEST(TimerFds, ExpiriesThatNobodyHasRead) {
  const Fd once = timer(CLOCK_MONOTONIC, 0, {0, 1}, {0, 0});
  const Fd often = timer(CLOCK_MONOTONIC, 0, {0, 1}, {0, 10'000'000});
  const Fd unset = timer(CLOCK_MONOTONIC, 0, {0, 0}, {0, 0});
  ::usleep(35'000);
  uint64_t ticks = 0;
  EXPECT_EQ(::read(Carrier<TimerFd>().carry(once.get()).get(), &ticks, sizeof ticks), 8);
  EXPECT_EQ(ticks, 1u);
  Carrier<TimerFd> carrier;
  const Fd copy = carrier.carry(often.get());
  EXPECT_GE(carrier.dumped.ticks, 4u);
  EXPECT_GT(carrier.dumped.left_ns, 0u);
  EXPECT_LE(carrier.dumped.left_ns, 10'000'000u);
  EXPECT_EQ(::read(copy.get(), &ticks, sizeof ticks), 8);
  EXPECT_GE(ticks, carrier.dumped.ticks);
  EXPECT_EQ(::read(Carrier<TimerFd>().carry(unset.get()).get(), &ticks, sizeof ticks), -1);
}

}  // namespace
}  // namespace stasis
