#include "objects/task/robust_list.h"

#include <sys/syscall.h>

#include "kernel/process.h"

namespace stasis {

void RobustListHead::look(const LookView& view, State& state) {
  RobustList list;
  fail_if(get_robust_list(view.tid, list), "its robust futex list cannot be read");
  state = {.head = list.head, .length = static_cast<uint32_t>(list.length)};
}

void RobustListHead::encode(const State& state, pb::core_entry& core) {
  core.mutable_thread_core()->set_futex_rla(state.head);
  core.mutable_thread_core()->set_futex_rla_len(state.length);
}

void RobustListHead::decode(const pb::core_entry& core, State& state) {
  state = {.head = core.thread_core().futex_rla(), .length = core.thread_core().futex_rla_len()};
}

void RobustListHead::settle(const State& state, const SettleView&, SyscallBatch& batch) {
  if (state.head != 0) batch.must(SYS_set_robust_list, {state.head, state.length});
}

}  // namespace stasis
