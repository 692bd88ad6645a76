#include "objects/task/memory_merge.h"

#include <sys/prctl.h>
#include <sys/syscall.h>

#include "kernel/uapi.h"

namespace stasis {

void MemoryMerge::ask(const LookView&, SyscallBatch& batch, Ask& ask, State&) {
  ask.on = batch.call(SYS_prctl, {uapi::pr_get_memory_merge, 0, 0, 0, 0});  // EINVAL before 6.4 and without KSM
}

void MemoryMerge::answer(const SyscallBatch& batch, const Ask& ask, State& state) {
  state.on = batch.result(ask.on) == 1;
}

void MemoryMerge::encode_extension(const State& state, pb::extension_task& task) {
  if (state.on.value_or(false)) task.mutable_mm()->set_memory_merge(true);
}

void MemoryMerge::decode_extension(const pb::extension_task& task, State& state) {
  state.on = task.mm().memory_merge();
}

void MemoryMerge::settle(const State& state, const SettleView&, SyscallBatch& batch) {
  static const bool own = prctl(uapi::pr_get_memory_merge, 0, 0, 0, 0) == 1;
  if (state.on && *state.on != own) batch.must(SYS_prctl, {uapi::pr_set_memory_merge, *state.on ? 1 : 0, 0, 0, 0});
}

}  // namespace stasis
