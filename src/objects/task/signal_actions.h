// What a process does on each signal (rt_sigaction).
#pragma once

#include <array>
#include <cstdint>

#include "objects/task_object.h"

namespace stasis {

// As the kernel of a 64-bit machine transfers it.
struct KernelSigaction {
  uint64_t handler = 0, flags = 0, restorer = 0, mask = 0;
  bool operator==(const KernelSigaction&) const = default;
};
static_assert(sizeof(KernelSigaction) == 32);

struct SignalActions {
  static constexpr std::string_view name = "signal handlers";
  static constexpr Scope scope = Scope::process;
  static constexpr int kSignals = 64;
  struct State {
    std::array<KernelSigaction, kSignals> actions{};  // of signal n at n-1; SIGKILL and SIGSTOP stay empty
    bool compat = false;                              // set by calls of the narrower width
  };
  struct Ask {
    BatchData actions;
  };
  static void ask(const LookView& view, SyscallBatch& batch, Ask& ask, State& state);
  static void answer(const SyscallBatch& batch, const Ask& ask, State& state);
  static void encode(const State& state, pb::core_entry& core);
  static void decode(const pb::core_entry& core, State& state);
  static void settle(const State& state, const SettleView& view, SyscallBatch& batch);
};

}  // namespace stasis
