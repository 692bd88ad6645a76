#include "restore/sleep.h"

#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <climits>
#include <optional>

#include "base/log.h"
#include "base/nanoseconds.h"
#include "objects/task/timed_call.h"

namespace stasis {

namespace {

// The kernel writes what is left of a sleep to its caller, if there is a place for it. That is exact.
std::optional<uint64_t> told_to_caller(const SleepRestart& sleep, arch::CallForm form, pid_t pid) {
  const int argument = form.number == SYS_nanosleep ? 1 : form.number == SYS_clock_nanosleep ? 3 : -1;
  if (argument < 0 || sleep.args[argument] == 0) return std::nullopt;
  // What the kernel writes makes sense; the program may have written there since.
  return read_time_ns(pid, sleep.args[argument], form.time32);
}

std::optional<uint64_t> time_left_ns(const SleepRestart& sleep, arch::CallForm form, pid_t pid) {
  auto left_ns = told_to_caller(sleep, form, pid);
  if (!left_ns) left_ns = sleep.left_ns;
  if (!left_ns) return std::nullopt;
  return *left_ns - std::min(*left_ns, sleep.clocks_went_on_ns);
}

// By the call that the thread made: what the kernel keeps of it depends on the width.
SyscallBatch::Call shorter_call(const SleepRestart& sleep, arch::CallForm form, uint64_t left_ns, SyscallBatch& batch) {
  const uint64_t* args = sleep.args;
  const auto number = static_cast<long>(sleep.number | (sleep.compat ? arch::kCompatCall : 0));
  if (form.number == SYS_poll) {
    const uint64_t left_ms = (left_ns + kMillisecond_ns - 1) / kMillisecond_ns;
    return batch.call(number, {args[0], args[1], std::min<uint64_t>(left_ms, INT_MAX)});
  }
  const timespec left = to_timespec(left_ns);
  const std::array<int32_t, 2> left32{static_cast<int32_t>(left.tv_sec), static_cast<int32_t>(left.tv_nsec)};
  const BatchData limit = form.time32 ? batch.object(left32) : batch.object(left);
  switch (form.number) {
    case SYS_nanosleep:
      return batch.call(number, {limit, args[1]});
    case SYS_clock_nanosleep:
      return batch.call(number, {args[0], args[1], limit, args[3]});
    default:
      return batch.call(number, {args[0], args[1], args[2], limit, args[4], args[5]});
  }
}

bool can_be_shortened(uint64_t number) {
  return number == SYS_nanosleep || number == SYS_clock_nanosleep || number == SYS_poll || number == SYS_futex;
}

}  // namespace

void restart_sleep(Puppet& puppet, Tracee& thread, unsigned slot, const SleepRestart& sleep, arch::Registers& regs,
                   StopWaiter& waiter) {
  // Without a restart block this call returns EINTR: all that is left when nobody knows what slept.
  arch::set_call_number(regs, arch::restart_call_number(regs));
  const auto form = arch::native_form(sleep.number, sleep.compat);
  if (!sleep.known || !form) return;
  const bool endless = form->number == SYS_poll && static_cast<int32_t>(sleep.args[2]) < 0;
  const auto left_ns =
      endless || !can_be_shortened(form->number) ? std::nullopt : time_left_ns(sleep, *form, thread.tid());
  if (!left_ns) {
    arch::set_call_number(regs, sleep.number);
    return;
  }

  SyscallBatch batch;
  const SyscallBatch::Call call = shorter_call(sleep, *form, *left_ns, batch);
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
