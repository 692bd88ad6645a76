// Whether a thread shares a core only with threads of its cookie (PR_SCHED_CORE). Cookies are not restored.
#pragma once

#include <optional>

#include "objects/task_object.h"

namespace stasis {

struct CoreScheduling {
  static constexpr std::string_view name = "core scheduling";
  static constexpr Scope scope = Scope::thread;
  struct State {
    uint64_t cookie = 0;
  };
  static void prepare(const ProcStatus& root);
  static void look(const LookView& view, State& state);
  static std::optional<Loss> loss(const State& state);
};

}  // namespace stasis
