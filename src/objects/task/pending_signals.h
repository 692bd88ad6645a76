// Signals that wait for a thread, or for any thread of a process: complete siginfo, in the order of the queue.
//
// They are queued again by the task itself: the kernel takes any si_code only from the receiver (O-54). All signals are
// blocked then, and the handlers are in place (setting a handler to ignore empties the queue).
#pragma once

#include <signal.h>

#include <vector>

#include "objects/task/signal_actions.h"
#include "objects/task_object.h"

namespace stasis {

struct ThreadPendingSignals {
  static constexpr std::string_view name = "pending signals of the thread";
  static constexpr Scope scope = Scope::thread;
  struct State {
    std::vector<siginfo_t> queue;
  };
  static void look(const LookView& view, State& state);
  static void encode(const State& state, pb::core_entry& core);
  static void decode(const pb::core_entry& core, State& state);
  static void settle(const State& state, const SettleView& view, SyscallBatch& batch);
};

struct ProcessPendingSignals {
  static constexpr std::string_view name = "pending signals of the process";
  static constexpr Scope scope = Scope::process;
  using State = ThreadPendingSignals::State;
  static void look(const LookView& view, State& state);
  static void encode(const State& state, pb::core_entry& core);
  static void decode(const pb::core_entry& core, State& state);
  static void settle(const State& state, const SettleView& view, SyscallBatch& batch);
};

// The handler that runs first when a thread with these pending sets is released; null if none does, or if the process
// ends or stops before.
const KernelSigaction* first_handler(uint64_t own_pending, uint64_t shared_pending, uint64_t blocked,
                                     const SignalActions::State& actions);

// The set of the signals in a queue, bit n-1 for signal n.
uint64_t pending_set(const ThreadPendingSignals::State& state);

}  // namespace stasis
