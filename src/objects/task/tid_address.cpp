#include "objects/task/tid_address.h"

#include <sys/syscall.h>

#include "kernel/uapi.h"
#include "objects/task/registers.h"

namespace stasis {

void TidAddress::ask(const LookView&, SyscallBatch& batch, Ask& ask, State&) {
  ask.address = batch.space(sizeof(uint64_t));
  batch.must(SYS_prctl, {uapi::pr_get_tid_address, ask.address, 0, 0, 0});
}

void TidAddress::answer(const SyscallBatch& batch, const Ask& ask, State& state) {
  state.address = batch.value<uint64_t>(ask.address);
}

void TidAddress::encode(const State& state, pb::core_entry& core) {
  encode_clear_tid_address(state.address, core);
}

void TidAddress::decode(const pb::core_entry& core, State& state) {
  state.address = decode_clear_tid_address(core);
}

void TidAddress::settle(const State& state, const SettleView&, SyscallBatch& batch) {
  batch.must(SYS_set_tid_address, {state.address});
}

}  // namespace stasis
