// How readily the kernel ends a process when memory runs out (/proc/PID/oom_score_adj).
#pragma once

#include <optional>

#include "objects/task_object.h"

namespace stasis {

struct OomScore {
  static constexpr std::string_view name = "out-of-memory score";
  static constexpr Scope scope = Scope::process;
  static constexpr const char* proc_files[] = {"oom_score_adj"};
  struct State {
    std::optional<int> adjustment;
  };
  static void look(const LookView& view, State& state);
  static void encode(const State& state, pb::core_entry& core);
  static void decode(const pb::core_entry& core, State& state);
  static void apply(const State& state, const SettleView& view);
};

}  // namespace stasis
