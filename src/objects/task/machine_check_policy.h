// Whether a thread is killed early for a broken page of its memory (PR_MCE_KILL).
#pragma once

#include <cstdint>
#include <optional>

#include "objects/task_object.h"

namespace stasis {

struct MachineCheckPolicy {
  static constexpr std::string_view name = "machine check policy";
  static constexpr Scope scope = Scope::thread;
  enum class Kill : uint32_t { late = 0, early = 1, by_system = 2 };  // the numbers of prctl(2)
  struct State {
    std::optional<Kill> kill;  // nothing: what the task inherits stays
  };
  static void look(const LookView& view, State& state);
  static void encode_extension(const State& state, pb::extension_task& task);
  static void decode_extension(const pb::extension_task& task, State& state);
  static void settle(const State& state, const SettleView& view, SyscallBatch& batch);
};

}  // namespace stasis
