// State of tasks that images have no place for, or that this version does not save. It is looked for so that it is not
// lost silently: the dump is refused.
#pragma once

#include "objects/task_object.h"

namespace stasis {

// Shadow stack, system call dispatch.
struct RefusedState {
  static constexpr std::string_view name = "thread state that is not saved";
  static constexpr Scope scope = Scope::thread;
  struct State {};
  static void look(const LookView& view, State& state);
};

}  // namespace stasis
