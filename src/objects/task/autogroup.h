// Nice value of the scheduling group of a session (/proc/PID/autogroup). A new session has a new group.
#pragma once

#include <cstdint>
#include <optional>

#include "objects/task_object.h"

namespace stasis {

struct Autogroup {
  static constexpr std::string_view name = "nice value of the session";
  static constexpr Scope scope = Scope::process;
  struct State {
    std::optional<int32_t> nice;  // nothing: the task leads no session, or the kernel has no such groups
  };
  static void look(const LookView& view, State& state);
  static void encode_extension(const State& state, pb::extension_task& task);
  static void decode_extension(const pb::extension_task& task, State& state);
  static void apply(const State& state, const SettleView& view);
};

}  // namespace stasis
