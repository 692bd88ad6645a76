// The signal that a thread gets when its parent ends (PR_SET_PDEATHSIG).
#pragma once

#include "objects/task_object.h"

namespace stasis {

struct ParentDeathSignal {
  static constexpr std::string_view name = "parent-death signal";
  static constexpr Scope scope = Scope::thread;
  struct State {
    int signal = 0;
  };
  struct Ask {
    BatchData signal;
  };
  static void ask(const LookView& view, SyscallBatch& batch, Ask& ask, State& state);
  static void answer(const SyscallBatch& batch, const Ask& ask, State& state);
  static void encode(const State& state, pb::core_entry& core);
  static void decode(const pb::core_entry& core, State& state);
  static void settle(const State& state, const SettleView& view, SyscallBatch& batch);
};

}  // namespace stasis
