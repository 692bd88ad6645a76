// Scheduling of a thread: policy, nice value, static priority, reset-on-fork; in our own image what deadline
// scheduling needs, a time slice of its own, and utilisation clamps.
#pragma once

#include <cstdint>

#include "objects/task_object.h"

namespace stasis {

struct Scheduling {
  static constexpr std::string_view name = "scheduling";
  static constexpr Scope scope = Scope::thread;
  struct Deadline {
    uint64_t runtime_ns = 0, deadline_ns = 0, period_ns = 0;
    uint64_t flags = 0;  // SCHED_FLAG_RECLAIM, SCHED_FLAG_DL_OVERRUN
    bool operator==(const Deadline&) const = default;
  };
  struct Clamps {
    uint32_t util_min = 0, util_max = 1024;
    bool operator==(const Clamps&) const = default;
  };
  struct State {
    uint32_t policy = 0;  // SCHED_*
    bool reset_on_fork = false;
    int32_t nice = 0;  // kept by the kernel under real-time policies, too
    uint32_t priority = 0;
    Deadline deadline;
    uint64_t slice_ns = 0;  // of the fair policies (6.12); 0: that of the system
    Clamps clamps;
    bool operator==(const State&) const = default;
  };
  static void prepare(const ProcStatus& root);
  static void look(const LookView& view, State& state);
  static void encode(const State& state, pb::core_entry& core);
  static void decode(const pb::core_entry& core, State& state);
  static void encode_extension(const State& state, pb::extension_task& task);
  static void decode_extension(const pb::extension_task& task, State& state);
  static void apply(const State& state, const SettleView& view);
};

}  // namespace stasis
