// Whether a thread is part of the I/O path and must not wait for it (PR_SET_IO_FLUSHER).
#pragma once

#include <cstdint>
#include <optional>

#include "objects/task_object.h"

namespace stasis {

struct IoFlusher {
  static constexpr std::string_view name = "I/O flusher mark";
  static constexpr Scope scope = Scope::thread;
  struct State {
    std::optional<bool> set;  // nothing: what the task inherits stays
  };
  static void look(const LookView& view, State& state);
  static void encode_extension(const State& state, pb::extension_task& task);
  static void decode_extension(const pb::extension_task& task, State& state);
  static void settle(const State& state, const SettleView& view, SyscallBatch& batch);
};

}  // namespace stasis
