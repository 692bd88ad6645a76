#include "objects/task/thp_disable.h"

#include <sys/prctl.h>
#include <sys/syscall.h>

#include "base/error.h"

namespace stasis {

void ThpDisable::ask(const LookView&, SyscallBatch& batch, Ask& ask, State&) {
  ask.value = batch.must(SYS_prctl, {PR_GET_THP_DISABLE, 0, 0, 0, 0});
}

void ThpDisable::answer(const SyscallBatch& batch, const Ask& ask, State& state) {
  const int64_t value = batch.result(ask.value);
  // 3: declined except where advised (6.18); images can tell yes and no only.
  if (value > 1)
    throw Error(Reason::UNSUPPORTED_STATE, "it declines transparent huge pages except where it advises them")
        .remedy("clear PR_SET_THP_DISABLE before the dump");
  state.disabled = value == 1;
}

void ThpDisable::settle(const State& state, const SettleView&, SyscallBatch& batch) {
  // New tasks inherit what this program was started with.
  if (state.disabled != (prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) == 1))
    batch.must(SYS_prctl, {PR_SET_THP_DISABLE, state.disabled ? 1 : 0, 0, 0, 0});
}

}  // namespace stasis
