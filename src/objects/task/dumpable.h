// Whether a process may be traced and leaves core dumps (PR_SET_DUMPABLE). The value belongs to the memory image: the
// owner of that image reads and fills State.
#pragma once

#include "objects/task_object.h"

namespace stasis {

struct Dumpable {
  static constexpr std::string_view name = "dumpable attribute";
  static constexpr Scope scope = Scope::process;
  struct State {
    int value = 1;  // 0 no, 1 yes, 2 readable by root only
  };
  struct Ask {
    SyscallBatch::Call value;
  };
  static void ask(const LookView& view, SyscallBatch& batch, Ask& ask, State& state);
  static void answer(const SyscallBatch& batch, const Ask& ask, State& state);
  // Before the credentials, for the value 2 alone.
  static void settle(const State& state, const SettleView& view, SyscallBatch& batch);
  // After the credentials of all threads: changing those resets the value (O-59).
  static void arm(const State& state, const SettleView& view, SyscallBatch& batch);
};

}  // namespace stasis
