// For which memory barriers a process is registered (membarrier(2)).
#pragma once

#include <cstdint>

#include "objects/task_object.h"

namespace stasis {

struct Membarrier {
  static constexpr std::string_view name = "membarrier registrations";
  static constexpr Scope scope = Scope::process;
  struct State {
    uint32_t commands = 0;  // the MEMBARRIER_CMD_REGISTER_* that were made
  };
  struct Ask {
    SyscallBatch::Call commands;
  };
  static void ask(const LookView& view, SyscallBatch& batch, Ask& ask, State& state);
  static void answer(const SyscallBatch& batch, const Ask& ask, State& state);
  static void encode(const State& state, pb::core_entry& core);
  static void decode(const pb::core_entry& core, State& state);
  static void settle(const State& state, const SettleView& view, SyscallBatch& batch);
};

}  // namespace stasis
