// Whether all anonymous memory of a process may be merged with equal pages (PR_SET_MEMORY_MERGE).
#pragma once

#include <cstdint>
#include <optional>

#include "objects/task_object.h"

namespace stasis {

struct MemoryMerge {
  static constexpr std::string_view name = "merging of all memory";
  static constexpr Scope scope = Scope::process;
  struct State {
    std::optional<bool> on;  // nothing: what the task inherits stays
  };
  struct Ask {
    SyscallBatch::Call on;
  };
  static void ask(const LookView& view, SyscallBatch& batch, Ask& ask, State& state);
  static void answer(const SyscallBatch& batch, const Ask& ask, State& state);
  static void encode_extension(const State& state, pb::extension_task& task);
  static void decode_extension(const pb::extension_task& task, State& state);
  static void settle(const State& state, const SettleView& view, SyscallBatch& batch);
};

}  // namespace stasis
