// Misfeatures of the processor that a thread has switched for itself (PR_SET_SPECULATION_CTRL).
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "objects/task_object.h"

namespace stasis {

struct Speculation {
  static constexpr std::string_view name = "speculation control";
  static constexpr Scope scope = Scope::thread;
  // Of PR_SPEC_STORE_BYPASS, INDIRECT_BRANCH, L1D_FLUSH; 0: not in the hand of tasks.
  using Controls = std::array<uint32_t, 3>;
  struct State {
    Controls control{};
  };
  struct Ask {
    std::array<std::optional<SyscallBatch::Call>, 3> control;
  };
  static void prepare(const ProcStatus& root);
  static void ask(const LookView& view, SyscallBatch& batch, Ask& ask, State& state);
  static void answer(const SyscallBatch& batch, const Ask& ask, State& state);
  static void encode_extension(const State& state, pb::extension_task& task);
  static void decode_extension(const pb::extension_task& task, State& state);
  // Some cannot be taken back: after everything else.
  static void arm(const State& state, const SettleView& view, SyscallBatch& batch);
};

}  // namespace stasis
