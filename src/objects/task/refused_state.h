// State of tasks that images have no place for, or that this version does not save. It is looked for so that it is not
// lost silently: the dump is refused.
#pragma once

#include "objects/task_object.h"

namespace stasis {

// Shadow stack, system call dispatch.
struct RefusedThreadState {
  static constexpr std::string_view name = "thread state that is not saved";
  static constexpr Scope scope = Scope::thread;
  struct State {};
  static void look(const LookView& view, State& state);
};

// Confinement by a security module.
struct RefusedProcessState {
  static constexpr std::string_view name = "process state that is not saved";
  static constexpr Scope scope = Scope::process;
  struct State {};
  static void prepare(const ProcStatus& root);
  static void look(const LookView& view, State& state);
  static void decode(const pb::core_entry& core, State& state);
};

}  // namespace stasis
