// Execution domain and flags of a process (personality(2)).
#pragma once

#include <cstdint>

#include "objects/task_object.h"

namespace stasis {

struct Personality {
  static constexpr std::string_view name = "personality";
  static constexpr Scope scope = Scope::process;
  struct State {
    uint32_t value = 0;
  };
  struct Ask {
    SyscallBatch::Call value;
  };
  static void ask(const LookView& view, SyscallBatch& batch, Ask& ask, State& state);
  static void answer(const SyscallBatch& batch, const Ask& ask, State& state);
  static void encode(const State& state, pb::core_entry& core);
  static void decode(const pb::core_entry& core, State& state);
  static void settle(const State& state, const SettleView& view, SyscallBatch& batch);
};

}  // namespace stasis
