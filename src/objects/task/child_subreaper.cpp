#include "objects/task/child_subreaper.h"

#include <sys/prctl.h>
#include <sys/syscall.h>

namespace stasis {

void ChildSubreaper::ask(const LookView&, SyscallBatch& batch, Ask& ask, State&) {
  ask.set = batch.space(sizeof(int));
  batch.must(SYS_prctl, {PR_GET_CHILD_SUBREAPER, ask.set, 0, 0, 0});
}

void ChildSubreaper::answer(const SyscallBatch& batch, const Ask& ask, State& state) {
  state.set = batch.value<int>(ask.set) != 0;
}

void ChildSubreaper::encode(const State& state, pb::core_entry& core) {
  core.mutable_tc()->set_child_subreaper(state.set);
}

void ChildSubreaper::decode(const pb::core_entry& core, State& state) {
  state.set = core.tc().child_subreaper();
}

void ChildSubreaper::settle(const State& state, const SettleView&, SyscallBatch& batch) {
  if (state.set) batch.must(SYS_prctl, {PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0});
}

}  // namespace stasis
