#include "objects/task/personality.h"

#include <sys/syscall.h>

#include "base/error.h"

namespace stasis {

// personality(2) takes this for a question.
static constexpr uint32_t kAskOnly = 0xffffffff;

void Personality::ask(const LookView&, SyscallBatch& batch, Ask& ask, State&) {
  ask.value = batch.must(SYS_personality, {kAskOnly});
}

void Personality::answer(const SyscallBatch& batch, const Ask& ask, State& state) {
  state.value = static_cast<uint32_t>(batch.result(ask.value));
}

void Personality::encode(const State& state, pb::core_entry& core) {
  core.mutable_tc()->set_personality(state.value);
}

void Personality::decode(const pb::core_entry& core, State& state) {
  state.value = core.tc().personality();
  if (state.value == kAskOnly) throw Error(Reason::IMAGE_CORRUPT, "the personality makes no sense");
}

void Personality::settle(const State& state, const SettleView&, SyscallBatch& batch) {
  batch.must(SYS_personality, {state.value});
}

}  // namespace stasis
