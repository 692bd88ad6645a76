#include "objects/task/robust_list.h"

#include <sys/syscall.h>

#include "kernel/process.h"
#include "objects/task/registers.h"

namespace stasis {

void RobustListHead::look(const LookView& view, State& state) {
  RobustList list;
  fail_if(get_robust_list(view.tid, list), "its robust futex list cannot be read");
  state = {.head = list.head, .length = static_cast<uint32_t>(list.length), .compat = view.compat};
}

void RobustListHead::ask(const LookView&, SyscallBatch& batch, Ask& ask, State& state) {
  if (!state.compat) return;
  ask.head = batch.space(sizeof(uint32_t));
  ask.length = batch.space(sizeof(uint32_t));
  batch.must(arch::kCompatGetRobustList, {0, ask.head, ask.length});
}

void RobustListHead::answer(const SyscallBatch& batch, const Ask& ask, State& state) {
  if (!state.compat) return;
  state.head = batch.value<uint32_t>(ask.head);
  state.length = batch.value<uint32_t>(ask.length);
}

void RobustListHead::encode(const State& state, pb::core_entry& core) {
  core.mutable_thread_core()->set_futex_rla(state.head);
  core.mutable_thread_core()->set_futex_rla_len(state.length);
}

void RobustListHead::decode(const pb::core_entry& core, State& state) {
  state = {.head = core.thread_core().futex_rla(),
           .length = core.thread_core().futex_rla_len(),
           .compat = runs_compat_code(core)};
}

void RobustListHead::settle(const State& state, const SettleView&, SyscallBatch& batch) {
  if (state.head == 0) return;
  batch.must(state.compat ? arch::kCompatSetRobustList : SYS_set_robust_list, {state.head, state.length});
}

}  // namespace stasis
