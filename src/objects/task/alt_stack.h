// The alternate signal stack of a thread.
#pragma once

#include <cstdint>

#include "objects/task_object.h"

namespace stasis {

struct AltStack {
  static constexpr std::string_view name = "alternate signal stack";
  static constexpr Scope scope = Scope::thread;
  struct State {
    uint64_t base = 0, size = 0;
    uint32_t flags = 0;  // SS_*, as the kernel reports them
  };
  struct Ask {
    BatchData old;
  };
  static void ask(const LookView& view, SyscallBatch& batch, Ask& ask, State& state);
  static void answer(const SyscallBatch& batch, const Ask& ask, State& state);
  static void encode(const State& state, pb::core_entry& core);
  static void decode(const pb::core_entry& core, State& state);
  static void settle(const State& state, const SettleView& view, SyscallBatch& batch);
};

}  // namespace stasis
