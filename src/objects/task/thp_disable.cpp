#include "objects/task/thp_disable.h"

#include <sys/prctl.h>
#include <sys/syscall.h>

namespace stasis {

namespace {

// The answer to PR_GET_THP_DISABLE. The second bit is the flag that PR_SET_THP_DISABLE takes (6.18).
constexpr int kDisabled = 1, kExceptAdvised = 2;

}  // namespace

void ThpDisable::ask(const LookView&, SyscallBatch& batch, Ask& ask, State&) {
  ask.value = batch.must(SYS_prctl, {PR_GET_THP_DISABLE, 0, 0, 0, 0});
}

void ThpDisable::answer(const SyscallBatch& batch, const Ask& ask, State& state) {
  const int64_t value = batch.result(ask.value);
  state = {.disabled = (value & kDisabled) != 0, .except_advised = (value & kExceptAdvised) != 0};
}

void ThpDisable::encode_extension(const State& state, pb::extension_task& task) {
  if (state.except_advised) task.mutable_mm()->set_thp_disable_except_advised(true);
}

void ThpDisable::decode_extension(const pb::extension_task& task, State& state) {
  state.except_advised = task.mm().thp_disable_except_advised();
}

void ThpDisable::settle(const State& state, const SettleView&, SyscallBatch& batch) {
  // New tasks inherit what this program was started with.
  const int own = prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0);
  const int wanted = state.disabled ? kDisabled | (state.except_advised ? kExceptAdvised : 0) : 0;
  if (wanted != own) batch.must(SYS_prctl, {PR_SET_THP_DISABLE, wanted & kDisabled, wanted & kExceptAdvised, 0, 0});
}

}  // namespace stasis
