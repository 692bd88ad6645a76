#include "restore/sleep.h"

#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <optional>

#include "base/log.h"
#include "kernel/process.h"

namespace stasis {

namespace {

constexpr uint64_t kSecond_ns = 1'000'000'000, kMillisecond_ns = 1'000'000;

// The kernel writes what is left of a sleep to its caller, if there is a place for it. That is exact.
std::optional<uint64_t> told_to_caller(const SleepRestart& sleep, pid_t pid) {
  const int argument = sleep.number == SYS_nanosleep ? 1 : sleep.number == SYS_clock_nanosleep ? 3 : -1;
  timespec left{};
  if (argument < 0 || sleep.args[argument] == 0 ||
      process_vm_read_all(pid, sleep.args[argument], &left, sizeof left) != 0)
    return std::nullopt;
  // What the kernel writes makes sense; the program may have written there since.
  if (left.tv_sec < 0 || left.tv_nsec < 0 || left.tv_sec > INT64_MAX / 2'000'000'000) return std::nullopt;
  return static_cast<uint64_t>(left.tv_sec) * kSecond_ns + static_cast<uint64_t>(left.tv_nsec);
}

std::optional<timespec> time_left(const SleepRestart& sleep, pid_t pid) {
  auto left_ns = told_to_caller(sleep, pid);
  if (!left_ns) left_ns = sleep.left_ns;
  if (!left_ns) return std::nullopt;
  *left_ns -= std::min(*left_ns, sleep.clocks_went_on_ns);
  return timespec{.tv_sec = static_cast<time_t>(*left_ns / kSecond_ns),
                  .tv_nsec = static_cast<long>(*left_ns % kSecond_ns)};
}

SyscallBatch::Call shorter_call(const SleepRestart& sleep, const timespec& left, SyscallBatch& batch) {
  const uint64_t* args = sleep.args;
  if (sleep.number == SYS_poll) {
    const int64_t left_ms =
        left.tv_sec * 1000 +
        static_cast<int64_t>((static_cast<uint64_t>(left.tv_nsec) + kMillisecond_ns - 1) / kMillisecond_ns);
    return batch.call(SYS_poll, {args[0], args[1], std::min<int64_t>(left_ms, INT_MAX)});
  }
  const BatchData limit = batch.object(left);
  switch (sleep.number) {
    case SYS_nanosleep:
      return batch.call(SYS_nanosleep, {limit, args[1]});
    case SYS_clock_nanosleep:
      return batch.call(SYS_clock_nanosleep, {args[0], args[1], limit, args[3]});
    default:
      return batch.call(SYS_futex, {args[0], args[1], args[2], limit, args[4], args[5]});
  }
}

bool can_be_shortened(uint64_t number) {
  return number == SYS_nanosleep || number == SYS_clock_nanosleep || number == SYS_poll || number == SYS_futex;
}

}  // namespace

void restart_sleep(Puppet& puppet, Tracee& thread, unsigned slot, const SleepRestart& sleep, arch::Registers& regs,
                   StopWaiter& waiter) {
  // Without a restart block this call returns EINTR: all that is left when nobody knows what slept.
  arch::set_call_number(regs, SYS_restart_syscall);
  if (!sleep.known) return;
  const bool endless = sleep.number == SYS_poll && static_cast<int32_t>(sleep.args[2]) < 0;
  const auto left = endless || !can_be_shortened(sleep.number) ? std::nullopt : time_left(sleep, thread.tid());
  if (!left) {
    arch::set_call_number(regs, sleep.number);
    return;
  }

  SyscallBatch batch;
  const SyscallBatch::Call call = shorter_call(sleep, *left, batch);
  puppet.host().start(thread, slot, batch);
  // The first tries may come before it sleeps.
  for (int tries = 0; tries < 1000; ++tries) {
    if (tries > 2) usleep(20);
    if (puppet.host().interrupt(thread, slot, batch, waiter)) {
      arch::finish_rewound_call(regs, batch.result(call));
      return;
    }
    if (arch::interrupted_call(thread.current_registers()) == arch::Interrupted::restart_block) return;
    thread.resume();
  }
  log_debug("{}: its sleep was not restarted", thread.describe());
  arch::set_call_number(regs, sleep.number);
}

}  // namespace stasis
