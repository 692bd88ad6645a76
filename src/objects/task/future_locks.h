// mlockall(MCL_FUTURE): memory that is mapped later is locked. The kernel shows it in no file; a new mapping has it,
// and the batch area is one.
#pragma once

#include "objects/task_object.h"

namespace stasis {

struct FutureLocks {
  static constexpr std::string_view name = "locking of future mappings";
  static constexpr Scope scope = Scope::process;
  struct State {
    uint32_t flags = 0;  // MCL_FUTURE, MCL_ONFAULT
    bool operator==(const State&) const = default;
  };

  // `area`: address of a page that was mapped in the stopped process just now.
  static void look_at_new_mapping(pid_t pid, int pidfd, uint64_t area, State& state);
  static void encode_extension(const State& state, pb::extension_task& task);
  static void decode_extension(const pb::extension_task& task, State& state);
  static void settle(const State& state, const SettleView&, SyscallBatch& batch);
};

}  // namespace stasis
