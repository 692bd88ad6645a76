#include "objects/task/timer_slack.h"

#include <sys/prctl.h>
#include <sys/syscall.h>

namespace stasis {

void TimerSlack::ask(const LookView&, SyscallBatch& batch, Ask& ask, State&) {
  ask.ns = batch.must(SYS_prctl, {PR_GET_TIMERSLACK, 0, 0, 0, 0});
}

void TimerSlack::answer(const SyscallBatch& batch, const Ask& ask, State& state) {
  state.ns = static_cast<uint64_t>(batch.result(ask.ns));
}

void TimerSlack::encode_extension(const State& state, pb::extension_task& task) {
  if (state.ns.value_or(kDefault_ns) != kDefault_ns) task.mutable_thread()->set_timer_slack_ns(*state.ns);
}

void TimerSlack::decode_extension(const pb::extension_task& task, State& state) {
  state.ns = task.thread().has_timer_slack_ns() ? task.thread().timer_slack_ns() : kDefault_ns;
}

void TimerSlack::settle(const State& state, const SettleView&, SyscallBatch& batch) {
  // A real-time thread has none, and gets none by its policy.
  if (state.ns.value_or(0) == 0) return;
  static const auto own = static_cast<uint64_t>(prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0));
  if (*state.ns != own) batch.must(SYS_prctl, {PR_SET_TIMERSLACK, *state.ns, 0, 0, 0});
}

}  // namespace stasis
