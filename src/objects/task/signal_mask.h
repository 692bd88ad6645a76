// Signals blocked by a thread. The mask is loaded by ptrace together with the registers (O-63), so there is no
// settle().
#pragma once

#include <cstdint>

#include "objects/task_object.h"

namespace stasis {

struct SignalMask {
  static constexpr std::string_view name = "signal mask";
  static constexpr Scope scope = Scope::thread;
  struct State {
    uint64_t blocked = 0;  // bit n-1: signal n
  };
  static void look(const LookView& view, State& state);
  static void encode(const State& state, pb::core_entry& core);
  static void decode(const pb::core_entry& core, State& state);
};

}  // namespace stasis
