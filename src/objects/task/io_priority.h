// Priority of the I/O of a thread (ioprio_set(2)). Threads may share it; each has the value.
#pragma once

#include <cstdint>
#include <optional>

#include "objects/task_object.h"

namespace stasis {

struct IoPriority {
  static constexpr std::string_view name = "I/O priority";
  static constexpr Scope scope = Scope::thread;
  struct State {
    std::optional<uint32_t> value;  // nothing: what the task inherits stays
  };
  static void look(const LookView& view, State& state);
  static void encode_extension(const State& state, pb::extension_task& task);
  static void decode_extension(const pb::extension_task& task, State& state);
  static void apply(const State& state, const SettleView& view);
};

}  // namespace stasis
