// Whether a process declines transparent huge pages (PR_SET_THP_DISABLE). The value belongs to the memory image: the
// owner of that image reads and fills State.
#pragma once

#include "objects/task_object.h"

namespace stasis {

struct ThpDisable {
  static constexpr std::string_view name = "transparent huge page attribute";
  static constexpr Scope scope = Scope::process;
  struct State {
    bool disabled = false;
  };
  struct Ask {
    SyscallBatch::Call value;
  };
  static void ask(const LookView& view, SyscallBatch& batch, Ask& ask, State& state);
  static void answer(const SyscallBatch& batch, const Ask& ask, State& state);
  static void settle(const State& state, const SettleView& view, SyscallBatch& batch);
};

}  // namespace stasis
