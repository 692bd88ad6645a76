#include "objects/task/membarrier.h"

#include <linux/membarrier.h>
#include <sys/syscall.h>

#include "base/error.h"

namespace stasis {

namespace {

constexpr int kGetRegistrations = 512;  // MEMBARRIER_CMD_GET_REGISTRATIONS (6.3); an older kernel cannot tell

constexpr uint32_t kRegister[] = {MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED,
                                  MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE,
                                  MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ};

}  // namespace

void Membarrier::ask(const LookView&, SyscallBatch& batch, Ask& ask, State&) {
  ask.commands = batch.call(SYS_membarrier, {kGetRegistrations, 0, 0});
}

void Membarrier::answer(const SyscallBatch& batch, const Ask& ask, State& state) {
  const int64_t commands = batch.result(ask.commands);
  state.commands = commands > 0 ? static_cast<uint32_t>(commands) : 0;
}

void Membarrier::encode(const State& state, pb::core_entry& core) {
  if (state.commands != 0) core.mutable_tc()->set_membarrier_registration_mask(state.commands);
}

void Membarrier::decode(const pb::core_entry& core, State& state) {
  state.commands = core.tc().membarrier_registration_mask();
  uint32_t unknown = state.commands;
  for (uint32_t command : kRegister) unknown &= ~command;
  if (unknown != 0) throw Error(Reason::IMAGE_CORRUPT, "a membarrier registration is none");
}

void Membarrier::settle(const State& state, const SettleView&, SyscallBatch& batch) {
  for (uint32_t command : kRegister)
    if ((state.commands & command) != 0) batch.must(SYS_membarrier, {command, 0, 0});
}

}  // namespace stasis
