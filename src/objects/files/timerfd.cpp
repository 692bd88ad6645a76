#include "objects/files/timerfd.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/error.h"
#include "base/nanoseconds.h"
#include "proto/timerfd.pb.h"

namespace stasis {
namespace {

constexpr uint32_t absolute = TFD_TIMER_ABSTIME;
// Sets what a read will return (Linux 3.17, CONFIG_CHECKPOINT_RESTORE); _IOW('T', 0, __u64).
constexpr unsigned long set_ticks = 0x40085400;

bool is_real_time(int clock) {
  return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_ALARM;
}

// The clock that can be read.
clockid_t read_by(int clock) {
  return is_real_time(clock) ? CLOCK_REALTIME : clock == CLOCK_BOOTTIME_ALARM ? CLOCK_BOOTTIME : clock;
}

std::string what(const TimerFd::State& state) {
  return fmt::format("timerfd (file {})", state.id);
}

Error restore_failed(const TimerFd::State& state, std::string what_failed) {
  return Error(Reason::RESTORE_CALL_FAILED, std::move(what_failed)).object(what(state)).error_number(errno);
}

struct Now {
  timespec value{};  // for timerfd_settime() with the flags of the state
  uint64_t ticks = 0;
};

// The clocks of the task have gone on since the restore began.
Now at_restore(const TimerFd::State& state, const RestoreFiles& files) {
  Now now{.ticks = state.ticks};
  if (state.left_ns == 0) return now;
  if (state.expires_at_ns) {
    now.value = to_timespec(*state.expires_at_ns);
    return now;
  }
  const uint64_t went_on = files.clocks_began_at_ns != 0 ? now_ns(CLOCK_MONOTONIC) - files.clocks_began_at_ns : 0;
  uint64_t left = 1;  // 0 would disarm it
  if (went_on < state.left_ns) {
    left = state.left_ns - went_on;
  } else if (state.interval_ns != 0) {
    const uint64_t late = went_on - state.left_ns;
    now.ticks += 1 + late / state.interval_ns;
    left = state.interval_ns - late % state.interval_ns;
  }
  now.value = to_timespec((state.set_flags & absolute) != 0 ? now_ns(read_by(state.clock)) + left : left);
  return now;
}

}  // namespace

bool TimerFd::match(const FileView& view) {
  return view.link == "anon_inode:[timerfd]";
}

void TimerFd::dump(const FileView& view, DumpFiles& files, Shared&, State& state) {
  dump_open_file(view, files, state);
  // One with an interval stands still from an expiry to the next read, or to this call.
  itimerspec times{};
  uint64_t real_time = 0;
  int failed = 0;
  const uint64_t now = moment_of([&] {
    failed = ::timerfd_gettime(view.fd, &times);
    real_time = now_ns(CLOCK_REALTIME);
  });
  if (failed != 0) throw Error(Reason::SYSTEM, "cannot read a timerfd").object(view.who()).error_number(errno);
  const uint64_t since_image = files.clocks_read_at_ns != 0 ? now - files.clocks_read_at_ns : 0;
  const std::string info = own_fdinfo(view.fd);
  const auto clock = fdinfo_number(info, "clockid"), ticks = fdinfo_number(info, "ticks");
  const auto set_flags = fdinfo_number(info, "settime flags", 8);
  if (!clock || !ticks || !set_flags)
    throw Error(Reason::SYSTEM, "fdinfo does not tell the state of a timerfd").object(view.who());
  state.clock = static_cast<int>(*clock);
  state.set_flags = static_cast<uint32_t>(*set_flags);
  state.ticks = *ticks;
  state.interval_ns = nanoseconds(times.it_interval);
  const uint64_t left = nanoseconds(times.it_value);
  if (left == 0) return;
  state.left_ns = left + since_image;
  if (is_real_time(state.clock) && (state.set_flags & absolute) != 0) state.expires_at_ns = real_time + left;
}

void TimerFd::encode(const State& state, pb::file_entry& out) {
  pb::timerfd_entry& tfd = *out.mutable_tfd();
  encode_open_file(state, type, out, tfd);
  tfd.set_clockid(static_cast<uint32_t>(state.clock));
  tfd.set_ticks(state.ticks);
  tfd.set_settime_flags(state.set_flags);
  tfd.set_vsec(state.left_ns / kSecond_ns);
  tfd.set_vnsec(state.left_ns % kSecond_ns);
  tfd.set_isec(state.interval_ns / kSecond_ns);
  tfd.set_insec(state.interval_ns % kSecond_ns);
}

void TimerFd::decode(const pb::file_entry& in, State& state) {
  constexpr uint64_t kMost_s = INT64_MAX / kSecond_ns;  // of the kernel
  const pb::timerfd_entry& tfd = in.tfd();
  decode_open_file(tfd, state);
  state.clock = static_cast<int>(tfd.clockid());
  state.set_flags = tfd.settime_flags();
  state.ticks = tfd.ticks();
  if (tfd.vsec() > kMost_s || tfd.isec() > kMost_s || tfd.vnsec() >= kSecond_ns || tfd.insec() >= kSecond_ns ||
      (state.set_flags & ~uint32_t{TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET}) != 0)
    throw Error(Reason::IMAGE_CORRUPT, "a timerfd makes no sense");
  state.left_ns = tfd.vsec() * kSecond_ns + tfd.vnsec();
  state.interval_ns = tfd.isec() * kSecond_ns + tfd.insec();
}

void TimerFd::encode_extension(const State& state, pb::extension_file& out) {
  if (state.expires_at_ns) out.set_timerfd_expires_at_ns(*state.expires_at_ns);
}

void TimerFd::decode_extension(const pb::extension_file& in, State& state) {
  if (in.has_timerfd_expires_at_ns()) state.expires_at_ns = in.timerfd_expires_at_ns();
}

Fd TimerFd::create(const State& state, RestoreFiles&, Shared&) {
  Fd fd(::timerfd_create(state.clock, TFD_CLOEXEC));
  if (!fd && errno == EPERM)
    throw Error(Reason::NO_PRIVILEGE, "a timer that wakes the machine up cannot be made")
        .object(what(state))
        .error_number(EPERM)
        .remedy("run the restore with CAP_WAKE_ALARM");
  if (!fd) throw restore_failed(state, fmt::format("cannot make a timerfd of clock {}", state.clock));
  restore_status_flags(fd.get(), state.flags, what(state));
  return fd;
}

void TimerFd::finish(const State& state, int fd, RestoreFiles& files, Shared&) {
  restore_file_owner(state.owner, fd, files, what(state));
  const Now now = at_restore(state, files);
  const itimerspec times{.it_interval = to_timespec(state.interval_ns), .it_value = now.value};
  // One that waits for changes of the clock says so once if there was one since the dump; that is what it is for.
  if (::timerfd_settime(fd, static_cast<int>(state.set_flags), &times, nullptr) != 0)
    throw restore_failed(state, "cannot set a timerfd");
  if (now.ticks != 0 && ::ioctl(fd, set_ticks, &now.ticks) != 0)
    throw restore_failed(state, "cannot set how often a timerfd has expired")
        .remedy("run a kernel with CONFIG_CHECKPOINT_RESTORE");
}

}  // namespace stasis
