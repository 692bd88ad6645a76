// The three interval timers of a process (setitimer(2)): real, virtual, profiling.
#pragma once

#include <array>
#include <cstdint>

#include "objects/task_object.h"

namespace stasis {

struct IntervalTimers {
  static constexpr std::string_view name = "interval timers";
  static constexpr Scope scope = Scope::process;
  // As the kernel of a 64-bit machine transfers it.
  struct Timer {
    uint64_t interval_s = 0, interval_us = 0, value_s = 0, value_us = 0;
  };
  struct State {
    std::array<Timer, 3> timers{};  // ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF
  };
  struct Ask {
    BatchData timers;
  };
  static void ask(const LookView& view, SyscallBatch& batch, Ask& ask, State& state);
  static void answer(const SyscallBatch& batch, const Ask& ask, State& state);
  static void encode(const State& state, pb::core_entry& core);
  static void decode(const pb::core_entry& core, State& state);
  static void arm(const State& state, const SettleView& view, SyscallBatch& batch);
};

}  // namespace stasis
