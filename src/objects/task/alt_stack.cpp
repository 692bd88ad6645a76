#include "objects/task/alt_stack.h"

#include <signal.h>
#include <sys/syscall.h>

namespace stasis {

namespace {

// The kernel's stack_t; glibc's has a pointer in it, which means nothing here.
struct KernelStack {
  uint64_t base;
  uint32_t flags;
  uint32_t padding;
  uint64_t size;
};
static_assert(sizeof(KernelStack) == sizeof(stack_t));

}  // namespace

void AltStack::ask(const LookView&, SyscallBatch& batch, Ask& ask, State&) {
  // The batch runs with the thread's own stack pointer, so SS_ONSTACK is told truly.
  ask.old = batch.space(sizeof(KernelStack));
  batch.must(SYS_sigaltstack, {nullptr, ask.old});
}

void AltStack::answer(const SyscallBatch& batch, const Ask& ask, State& state) {
  const auto old = batch.value<KernelStack>(ask.old);
  state = {.base = old.base, .size = old.size, .flags = old.flags};
}

void AltStack::encode(const State& state, pb::core_entry& core) {
  pb::thread_sas_entry& out = *core.mutable_thread_core()->mutable_sas();
  out.set_ss_sp(state.base);
  out.set_ss_size(state.size);
  out.set_ss_flags(state.flags);
}

void AltStack::decode(const pb::core_entry& core, State& state) {
  state = {.flags = SS_DISABLE};
  if (!core.thread_core().has_sas()) return;
  const pb::thread_sas_entry& in = core.thread_core().sas();
  state = {.base = in.ss_sp(), .size = in.ss_size(), .flags = in.ss_flags()};
}

void AltStack::settle(const State& state, const SettleView&, SyscallBatch& batch) {
  // A new thread has none. SS_ONSTACK is no setting: it follows from the stack pointer (sigaltstack(2)).
  if ((state.flags & SS_DISABLE) != 0) return;
  const KernelStack stack{
      .base = state.base, .flags = state.flags & ~uint32_t{SS_ONSTACK}, .padding = 0, .size = state.size};
  batch.must(SYS_sigaltstack, {batch.object(stack), nullptr});
}

}  // namespace stasis
