// Instructions that a thread has made fault: reading the time stamp counter (PR_SET_TSC) and CPUID (ARCH_SET_CPUID).
#pragma once

#include <cstdint>
#include <optional>

#include "objects/task_object.h"

namespace stasis {

struct InstructionFaults {
  static constexpr std::string_view name = "faulting instructions";
  static constexpr Scope scope = Scope::thread;
  struct State {
    bool tsc = false, cpuid = false;
  };
  struct Ask {
    BatchData tsc;
    std::optional<SyscallBatch::Call> cpuid;
  };
  static void prepare(const ProcStatus& root);
  static void ask(const LookView& view, SyscallBatch& batch, Ask& ask, State& state);
  static void answer(const SyscallBatch& batch, const Ask& ask, State& state);
  static void encode_extension(const State& state, pb::extension_task& task);
  static void decode_extension(const pb::extension_task& task, State& state);
  static void settle(const State& state, const SettleView& view, SyscallBatch& batch);
};

}  // namespace stasis
