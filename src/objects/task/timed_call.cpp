#include "objects/task/timed_call.h"

#include <linux/futex.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>

#include <algorithm>
#include <climits>

#include "base/log.h"
#include "base/nanoseconds.h"
#include "kernel/process.h"

namespace stasis {

namespace {

std::optional<TimedCall> with_timespec(int argument, uint64_t address) {
  if (address == 0) return std::nullopt;
  return TimedCall{.limit_argument = argument, .milliseconds = false};
}

std::optional<TimedCall> with_milliseconds(int argument, uint64_t value) {
  if (static_cast<int32_t>(value) <= 0) return std::nullopt;
  return TimedCall{.limit_argument = argument, .milliseconds = true};
}

// Room for a timespec at the end of what the call fills in for its caller; 0 if there is none.
uint64_t room_for_timespec(uint64_t number, const arch::Registers& regs) {
  const auto end_of = [&](int buffer, uint64_t bytes) -> uint64_t {
    const uint64_t at = arch::call_argument(regs, buffer);
    return at == 0 || bytes < 2 * sizeof(timespec) ? 0 : at + bytes - sizeof(timespec);
  };
  switch (number) {
    case SYS_rt_sigtimedwait:
      return end_of(1, sizeof(siginfo_t));
    case SYS_epoll_pwait2:
      return end_of(1, std::min<uint64_t>(arch::call_argument(regs, 2), 1024) * sizeof(epoll_event));
    case SYS_io_getevents:
      return end_of(3, std::min<uint64_t>(arch::call_argument(regs, 2), 1024) * 32);
    default:
      return 0;
  }
}

}  // namespace

namespace {

std::optional<TimedCall> relative_native_call(uint64_t number, std::span<const uint64_t, 6> args) {
  switch (number) {
    case SYS_restart_syscall:
      return TimedCall();
    case SYS_nanosleep:
      return args[1] == 0 ? with_timespec(0, args[0]) : std::nullopt;
    case SYS_clock_nanosleep: {
      // Clocks of CPU time do not measure how long a call waited.
      const auto clock = static_cast<int32_t>(args[0]);
      const bool wall = clock == CLOCK_REALTIME || clock == CLOCK_MONOTONIC || clock == CLOCK_BOOTTIME ||
                        clock == CLOCK_TAI || clock == CLOCK_REALTIME_ALARM || clock == CLOCK_BOOTTIME_ALARM;
      return wall && (args[1] & TIMER_ABSTIME) == 0 && args[3] == 0 ? with_timespec(2, args[2]) : std::nullopt;
    }
    case SYS_futex: {
      const uint64_t operation = args[1] & ~uint64_t{FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME};
      return operation == FUTEX_WAIT ? with_timespec(3, args[3]) : std::nullopt;
    }
    case SYS_poll:
      return with_milliseconds(2, args[2]);
    case SYS_epoll_wait:
    case SYS_epoll_pwait:
      return with_milliseconds(3, args[3]);
    case SYS_epoll_pwait2:
    case SYS_semtimedop:
      return with_timespec(3, args[3]);
    case SYS_rt_sigtimedwait:
      return with_timespec(2, args[2]);
    case SYS_io_getevents:
      return with_timespec(4, args[4]);
    default:
      return std::nullopt;
  }
}

}  // namespace

std::optional<TimedCall> relative_timed_call(arch::CallForm form, std::span<const uint64_t, 6> args) {
  auto call = relative_native_call(form.number, args);
  if (call) call->time32 = form.time32;
  return call;
}

std::optional<uint64_t> read_time_ns(pid_t memory_of, uint64_t address, bool time32) {
  int64_t seconds = 0, nanoseconds = 0;
  if (time32) {
    int32_t time[2];
    if (process_vm_read_all(memory_of, address, time, sizeof time) != 0) return std::nullopt;
    seconds = time[0];
    nanoseconds = time[1];
  } else {
    timespec time{};
    if (process_vm_read_all(memory_of, address, &time, sizeof time) != 0) return std::nullopt;
    seconds = time.tv_sec;
    nanoseconds = time.tv_nsec;
  }
  // More than the kernel counts: for ever.
  if (seconds < 0 || nanoseconds < 0 ||
      static_cast<uint64_t>(seconds) >= static_cast<uint64_t>(INT64_MAX) / kSecond_ns ||
      static_cast<uint64_t>(nanoseconds) >= kSecond_ns)
    return std::nullopt;
  return static_cast<uint64_t>(seconds) * kSecond_ns + static_cast<uint64_t>(nanoseconds);
}

std::optional<uint64_t> limit_ns(const TimedCall& call, std::span<const uint64_t, 6> args, pid_t memory_of) {
  const uint64_t value = args[static_cast<size_t>(call.limit_argument)];
  if (call.milliseconds) return static_cast<uint32_t>(value) * kMillisecond_ns;
  return read_time_ns(memory_of, value, call.time32);
}

void shorten_wait(arch::Registers& regs, uint64_t left_ns, pid_t memory_of) {
  const uint64_t number = arch::interrupted_call_number(regs);
  uint64_t args[6];
  for (int i = 0; i < 6; ++i) args[i] = arch::call_argument(regs, i);
  const auto form = arch::native_form(number, arch::is_compat(regs));
  const auto call = form ? relative_timed_call(*form, args) : std::nullopt;
  if (!call) return;
  if (call->milliseconds) {
    const uint64_t left_ms = (left_ns + kMillisecond_ns - 1) / kMillisecond_ns;
    arch::set_call_argument(regs, call->limit_argument, left_ms);
    return;
  }
  const uint64_t room = room_for_timespec(form->number, regs);
  if (room == 0) return;
  const timespec left = to_timespec(left_ns);
  const int32_t left32[2] = {static_cast<int32_t>(left.tv_sec), static_cast<int32_t>(left.tv_nsec)};
  const int error = call->time32 ? process_vm_write_all(memory_of, room, left32, sizeof left32)
                                 : process_vm_write_all(memory_of, room, &left, sizeof left);
  if (error == 0) arch::set_call_argument(regs, call->limit_argument, room);
}

}  // namespace stasis
