// Scheduling of a thread: policy, nice value, static priority, reset-on-fork.
#pragma once

#include <cstdint>

#include "objects/task_object.h"

namespace stasis {

struct Scheduling {
  static constexpr std::string_view name = "scheduling";
  static constexpr Scope scope = Scope::thread;
  struct State {
    uint32_t policy = 0;  // SCHED_*
    bool reset_on_fork = false;
    int32_t nice = 0;  // kept by the kernel under real-time policies, too
    uint32_t priority = 0;
    bool operator==(const State&) const = default;
  };
  static void look(const LookView& view, State& state);
  static void encode(const State& state, pb::core_entry& core);
  static void decode(const pb::core_entry& core, State& state);
  static void apply(const State& state, const SettleView& view);
};

}  // namespace stasis
