// Extended registers that a process must ask the kernel for before it can use them (ARCH_REQ_XCOMP_PERM): the tiles of
// AMX. One source file per CPU.
#pragma once

#include "objects/task_object.h"

namespace stasis {

struct XstatePermission {
  static constexpr std::string_view name = "permission to use extended registers";
  static constexpr Scope scope = Scope::process;
  struct State {
    uint64_t components = 0;  // by bit
  };
  struct Ask {
    BatchData permitted;
    SyscallBatch::Call call;
    bool asked = false;
  };
  static void prepare(const ProcStatus& root);
  // On a CPU without such registers nothing is asked.
  static void ask(const LookView& view, SyscallBatch& batch, Ask& ask, State& state);
  static void answer(const SyscallBatch& batch, const Ask& ask, State& state);
  static void encode_extension(const State& state, pb::extension_task& task);
  static void decode_extension(const pb::extension_task& task, State& state);
  static void settle(const State& state, const SettleView& view, SyscallBatch& batch);
};

}  // namespace stasis
