// The address that the kernel clears and wakes when a thread ends (set_tid_address(2)).
#pragma once

#include <cstdint>

#include "objects/task_object.h"

namespace stasis {

struct TidAddress {
  static constexpr std::string_view name = "clear-on-exit address";
  static constexpr Scope scope = Scope::thread;
  struct State {
    uint64_t address = 0;
  };
  struct Ask {
    BatchData address;
  };
  static void ask(const LookView& view, SyscallBatch& batch, Ask& ask, State& state);
  static void answer(const SyscallBatch& batch, const Ask& ask, State& state);
  static void encode(const State& state, pb::core_entry& core);
  static void decode(const pb::core_entry& core, State& state);
  static void settle(const State& state, const SettleView& view, SyscallBatch& batch);
};

}  // namespace stasis
