// NUMA policy of a thread: on which nodes its new pages are (set_mempolicy(2)).
#pragma once

#include "kernel/number_set.h"
#include "objects/task_object.h"

namespace stasis {

struct NumaPolicy {
  static constexpr std::string_view name = "NUMA policy";
  static constexpr Scope scope = Scope::thread;
  struct State {
    bool told = false;  // false: what the task inherits stays
    uint32_t mode = 0;  // MPOL_*, with its flags
    NumberSet nodes;
  };
  struct Ask {
    BatchData mode, nodes;
  };
  static void prepare(const ProcStatus& root);
  static void ask(const LookView& view, SyscallBatch& batch, Ask& ask, State& state);
  static void answer(const SyscallBatch& batch, const Ask& ask, State& state);
  static void encode_extension(const State& state, pb::extension_task& task);
  static void decode_extension(const pb::extension_task& task, State& state);
  static void settle(const State& state, const SettleView& view, SyscallBatch& batch);
};

}  // namespace stasis
