// The name of a thread (PR_SET_NAME).
#pragma once

#include <string>

#include "objects/task_object.h"

namespace stasis {

struct ThreadName {
  static constexpr std::string_view name = "thread name";
  static constexpr Scope scope = Scope::thread;
  struct State {
    std::string text;
  };
  static void look(const LookView& view, State& state);
  static void encode(const State& state, pb::core_entry& core);
  static void decode(const pb::core_entry& core, State& state);
  static void settle(const State& state, const SettleView& view, SyscallBatch& batch);
};

// Throws IMAGE_CORRUPT if it cannot be the name of a task.
std::string checked_task_name(const std::string& text);

}  // namespace stasis
