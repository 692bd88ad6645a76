// The processors that a thread may run on (sched_setaffinity(2)).
#pragma once

#include "kernel/number_set.h"
#include "objects/task_object.h"

namespace stasis {

struct CpuAffinity {
  static constexpr std::string_view name = "CPU affinity";
  static constexpr Scope scope = Scope::thread;
  struct State {
    bool told = false;  // false: what the task inherits stays
    NumberSet cpus;     // empty: all
  };
  static void prepare(const ProcStatus& root);
  static void look(const LookView& view, State& state);
  static void encode_extension(const State& state, pb::extension_task& task);
  static void decode_extension(const pb::extension_task& task, State& state);
  static void apply(const State& state, const SettleView& view);
};

}  // namespace stasis
