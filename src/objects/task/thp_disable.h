// Whether a process declines transparent huge pages (PR_SET_THP_DISABLE). Whether it does belongs to the memory
// image, whose owner reads and fills `disabled`; the exception that Linux 6.18 added is in our own image.
#pragma once

#include "objects/task_object.h"

namespace stasis {

struct ThpDisable {
  static constexpr std::string_view name = "transparent huge page attribute";
  static constexpr Scope scope = Scope::process;
  struct State {
    bool disabled = false;
    bool except_advised = false;  // but takes them where MADV_HUGEPAGE asks for them
  };
  struct Ask {
    SyscallBatch::Call value;
  };
  static void ask(const LookView& view, SyscallBatch& batch, Ask& ask, State& state);
  static void answer(const SyscallBatch& batch, const Ask& ask, State& state);
  static void encode_extension(const State& state, pb::extension_task& task);
  static void decode_extension(const pb::extension_task& task, State& state);
  static void settle(const State& state, const SettleView& view, SyscallBatch& batch);
};

}  // namespace stasis
