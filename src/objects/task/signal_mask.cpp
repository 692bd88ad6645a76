#include "objects/task/signal_mask.h"

namespace stasis {

void SignalMask::look(const LookView& view, State& state) {
  state.blocked = view.thread.own_signal_mask();
}

void SignalMask::encode(const State& state, pb::core_entry& core) {
  core.mutable_thread_core()->set_blk_sigset(state.blocked);
}

void SignalMask::decode(const pb::core_entry& core, State& state) {
  // Older images have it in the part of the process.
  state.blocked = core.thread_core().has_blk_sigset() ? core.thread_core().blk_sigset() : core.tc().blk_sigset();
}

}  // namespace stasis
