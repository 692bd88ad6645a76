// The user id that the audit system knows a process by.
#pragma once

#include <cstdint>
#include <optional>

#include "objects/task_object.h"

namespace stasis {

struct LoginUid {
  static constexpr std::string_view name = "audit login uid";
  static constexpr Scope scope = Scope::process;
  static constexpr const char* proc_files[] = {"loginuid"};
  struct State {
    std::optional<uint32_t> uid;  // all ones: not set; nothing: the kernel has no audit
  };
  static void look(const LookView& view, State& state);
  static void encode(const State& state, pb::core_entry& core);
  static void decode(const pb::core_entry& core, State& state);
  // The descriptors of the task are final: it opens a file and closes it by the number that is free now.
  static void settle(const State& state, const SettleView& view, SyscallBatch& batch);
};

}  // namespace stasis
