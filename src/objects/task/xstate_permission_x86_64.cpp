#include <sys/syscall.h>

#include "base/error.h"
#include "base/log.h"
#include "kernel/uapi.h"
#include "objects/task/xsave_x86_64.h"
#include "objects/task/xstate_permission.h"

namespace stasis {

void XstatePermission::prepare(const ProcStatus&) {
  XsaveLayout::of_this_cpu();
}

void XstatePermission::ask(const LookView&, SyscallBatch& batch, Ask& ask, State&) {
  if (XsaveLayout::of_this_cpu().on_demand == 0) return;
  ask.permitted = batch.space(sizeof(uint64_t));
  ask.call = batch.call(SYS_arch_prctl, {uapi::arch_get_xcomp_perm, ask.permitted});
  ask.asked = true;
}

void XstatePermission::answer(const SyscallBatch& batch, const Ask& ask, State& state) {
  if (ask.asked && batch.result(ask.call) == 0)
    state.components = batch.value<uint64_t>(ask.permitted) & XsaveLayout::of_this_cpu().on_demand;
}

void XstatePermission::encode_extension(const State& state, pb::extension_task& task) {
  if (state.components != 0) task.mutable_process()->set_xstate_permission(state.components);
}

void XstatePermission::decode_extension(const pb::extension_task& task, State& state) {
  state.components = task.process().xstate_permission();
  if (state.components >> 63 != 0) throw Error(Reason::IMAGE_CORRUPT, "a permission for impossible registers");
}

void XstatePermission::settle(const State& state, const SettleView& view, SyscallBatch& batch) {
  // A CPU without them can hold a process that never used them: those that did are refused by their registers.
  const uint64_t here = XsaveLayout::of_this_cpu().on_demand;
  if ((state.components & ~here) != 0)
    log_info("{}: it may use the {}, which this CPU does not have", view.who,
             component_name(static_cast<uint32_t>(__builtin_ctzll(state.components & ~here))));
  for (uint64_t left = state.components & here; left != 0; left &= left - 1)
    batch.must(SYS_arch_prctl, {uapi::arch_req_xcomp_perm, __builtin_ctzll(left)});
}

}  // namespace stasis
