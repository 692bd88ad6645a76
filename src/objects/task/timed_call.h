// System calls that wait for at most a time which counts from their beginning. A restored one must not wait for the
// whole of it again.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <span>

#include "arch/arch.h"

namespace stasis {

struct TimedCall {
  int limit_argument = 0;
  bool milliseconds = false;  // an int; otherwise the address of a timespec
  bool time32 = false;        // whose fields have 32 bits
};
// Nothing for calls without a limit, with an absolute one, or for which the kernel itself tells the program what is
// left (select, ppoll, a sleep with a place for it). It may be restart_syscall, whose limit is known only from the code
// before it.
std::optional<TimedCall> relative_timed_call(arch::CallForm form, std::span<const uint64_t, 6> args);

// A struct timespec of a task; nothing if it cannot be read, or makes no sense.
std::optional<uint64_t> read_time_ns(pid_t memory_of, uint64_t address, bool time32);

// The limit in nanoseconds. Nothing if it cannot be read.
std::optional<uint64_t> limit_ns(const TimedCall& call, std::span<const uint64_t, 6> args, pid_t memory_of);

// Makes a wait that the kernel begins again as a whole (arch::restart_failed_wait()) have only `left_ns` as its limit:
// a changed register, which the call's caller may not rely on, or a time that is written behind what the call gives
// back. Calls with no room for that keep their limit.
void shorten_wait(arch::Registers& regs, uint64_t left_ns, pid_t memory_of);

}  // namespace stasis
