// Whether a process refuses to make writable memory executable (PR_SET_MDWE). Cannot be taken back.
#pragma once

#include <cstdint>
#include <optional>

#include "objects/task_object.h"

namespace stasis {

struct DenyWriteExecute {
  static constexpr std::string_view name = "refusal of executable memory";
  static constexpr Scope scope = Scope::process;
  struct State {
    uint32_t flags = 0;
  };
  struct Ask {
    SyscallBatch::Call flags;
  };
  static void ask(const LookView& view, SyscallBatch& batch, Ask& ask, State& state);
  static void answer(const SyscallBatch& batch, const Ask& ask, State& state);
  static void encode_extension(const State& state, pb::extension_task& task);
  static void decode_extension(const pb::extension_task& task, State& state);
  // The last change of the address space but the end of the batch area.
  static void arm(const State& state, const SettleView& view, SyscallBatch& batch);
};

}  // namespace stasis
