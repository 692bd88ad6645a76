// The list of robust futexes of a thread (set_robust_list(2)).
#pragma once

#include <cstdint>

#include "objects/task_object.h"

namespace stasis {

struct RobustListHead {
  static constexpr std::string_view name = "robust futex list";
  static constexpr Scope scope = Scope::thread;
  struct State {
    uint64_t head = 0;
    uint32_t length = 0;
    bool compat = false;  // 32-bit code has a list of its own
  };
  struct Ask {
    BatchData head, length;
  };
  static void look(const LookView& view, State& state);
  static void ask(const LookView& view, SyscallBatch& batch, Ask& ask, State& state);
  static void answer(const SyscallBatch& batch, const Ask& ask, State& state);
  static void encode(const State& state, pb::core_entry& core);
  static void decode(const pb::core_entry& core, State& state);
  static void settle(const State& state, const SettleView& view, SyscallBatch& batch);
};

}  // namespace stasis
