// Whether orphans below a process become its children (PR_SET_CHILD_SUBREAPER).
#pragma once

#include "objects/task_object.h"

namespace stasis {

struct ChildSubreaper {
  static constexpr std::string_view name = "child subreaper attribute";
  static constexpr Scope scope = Scope::process;
  struct State {
    bool set = false;
  };
  struct Ask {
    BatchData set;
  };
  static void ask(const LookView& view, SyscallBatch& batch, Ask& ask, State& state);
  static void answer(const SyscallBatch& batch, const Ask& ask, State& state);
  static void encode(const State& state, pb::core_entry& core);
  static void decode(const pb::core_entry& core, State& state);
  // The whole tree stands, and nothing that is not part of it will end below this process (O-60).
  static void settle(const State& state, const SettleView& view, SyscallBatch& batch);
};

}  // namespace stasis
