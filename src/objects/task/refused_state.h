// State of tasks that images have no place for, or that this version does not save. It is looked for so that it is not
// lost silently: the dump is refused.
#pragma once

#include "objects/task_object.h"

namespace stasis {

// Seccomp, shadow stack, system call dispatch, I/O flusher.
struct RefusedThreadState {
  static constexpr std::string_view name = "thread state that is not saved";
  static constexpr Scope scope = Scope::thread;
  struct State {};
  static void look(const LookView& view, State& state);
  static void decode(const pb::core_entry& core, State& state);
};

// Refusal of executable memory (PR_SET_MDWE), confinement by a security module.
struct RefusedProcessState {
  static constexpr std::string_view name = "process state that is not saved";
  static constexpr Scope scope = Scope::process;
  struct State {};
  struct Ask {
    SyscallBatch::Call mdwe;
  };
  static void prepare();
  static void look(const LookView& view, State& state);
  static void ask(const LookView& view, SyscallBatch& batch, Ask& ask, State& state);
  static void answer(const SyscallBatch& batch, const Ask& ask, State& state);
  static void decode(const pb::core_entry& core, State& state);
};

}  // namespace stasis
