#include "objects/task/deny_write_execute.h"

#include <sys/prctl.h>
#include <sys/syscall.h>

#include "base/error.h"
#include "kernel/uapi.h"

namespace stasis {

void DenyWriteExecute::ask(const LookView&, SyscallBatch& batch, Ask& ask, State&) {
  ask.flags = batch.call(SYS_prctl, {uapi::pr_get_mdwe, 0, 0, 0, 0});  // EINVAL before 6.3
}

void DenyWriteExecute::answer(const SyscallBatch& batch, const Ask& ask, State& state) {
  const int64_t flags = batch.result(ask.flags);
  state.flags = flags > 0 ? static_cast<uint32_t>(flags) : 0;
}

void DenyWriteExecute::encode_extension(const State& state, pb::extension_task& task) {
  if (state.flags != 0) task.mutable_mm()->set_deny_write_execute(state.flags);
}

void DenyWriteExecute::decode_extension(const pb::extension_task& task, State& state) {
  state.flags = task.mm().deny_write_execute();
}

void DenyWriteExecute::arm(const State& state, const SettleView&, SyscallBatch& batch) {
  static const int own = prctl(uapi::pr_get_mdwe, 0, 0, 0, 0);
  // What this program was given itself stays with its tasks: the kernel takes it back from nobody.
  if (state.flags != 0 && own <= 0) batch.must(SYS_prctl, {uapi::pr_set_mdwe, state.flags, 0, 0, 0});
}

}  // namespace stasis
