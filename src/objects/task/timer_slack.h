// How late a sleep of a thread may end (PR_SET_TIMERSLACK). The value that 0 stands for cannot be read and is not kept.
#pragma once

#include <cstdint>
#include <optional>

#include "objects/task_object.h"

namespace stasis {

struct TimerSlack {
  static constexpr std::string_view name = "timer slack";
  static constexpr Scope scope = Scope::thread;
  static constexpr uint64_t kDefault_ns = 50'000;
  struct State {
    std::optional<uint64_t> ns;  // 0: of a real-time thread (6.13); nothing: what the task inherits stays
  };
  struct Ask {
    SyscallBatch::Call ns;
  };
  static void ask(const LookView& view, SyscallBatch& batch, Ask& ask, State& state);
  static void answer(const SyscallBatch& batch, const Ask& ask, State& state);
  static void encode_extension(const State& state, pb::extension_task& task);
  static void decode_extension(const pb::extension_task& task, State& state);
  static void settle(const State& state, const SettleView& view, SyscallBatch& batch);
};

}  // namespace stasis
