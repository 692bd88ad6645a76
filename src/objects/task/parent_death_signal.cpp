#include "objects/task/parent_death_signal.h"

#include <sys/prctl.h>
#include <sys/syscall.h>

#include "base/error.h"

namespace stasis {

void ParentDeathSignal::ask(const LookView&, SyscallBatch& batch, Ask& ask, State&) {
  ask.signal = batch.space(sizeof(int));
  batch.must(SYS_prctl, {PR_GET_PDEATHSIG, ask.signal, 0, 0, 0});
}

void ParentDeathSignal::answer(const SyscallBatch& batch, const Ask& ask, State& state) {
  state.signal = batch.value<int>(ask.signal);
}

void ParentDeathSignal::encode(const State& state, pb::core_entry& core) {
  if (state.signal != 0) core.mutable_thread_core()->set_pdeath_sig(static_cast<uint32_t>(state.signal));
}

void ParentDeathSignal::decode(const pb::core_entry& core, State& state) {
  const uint32_t signal = core.thread_core().pdeath_sig();
  if (signal > 64) throw Error(Reason::IMAGE_CORRUPT, "the parent-death signal is no signal");
  state.signal = static_cast<int>(signal);
}

void ParentDeathSignal::settle(const State& state, const SettleView&, SyscallBatch& batch) {
  if (state.signal != 0) batch.must(SYS_prctl, {PR_SET_PDEATHSIG, state.signal, 0, 0, 0});
}

}  // namespace stasis
