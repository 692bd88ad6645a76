#include <asm/prctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "objects/task/instruction_faults.h"

namespace stasis {

namespace {

// ENODEV on most processors.
bool cpuid_can_fault() {
  static const bool can = syscall(SYS_arch_prctl, ARCH_SET_CPUID, syscall(SYS_arch_prctl, ARCH_GET_CPUID, 0)) == 0;
  return can;
}

}  // namespace

void InstructionFaults::prepare(const ProcStatus&) {
  cpuid_can_fault();
}

void InstructionFaults::ask(const LookView&, SyscallBatch& batch, Ask& ask, State&) {
  ask.tsc = batch.space(sizeof(int));
  batch.must(SYS_prctl, {PR_GET_TSC, ask.tsc, 0, 0, 0});
  if (cpuid_can_fault()) ask.cpuid = batch.must(SYS_arch_prctl, {ARCH_GET_CPUID, 0});
}

void InstructionFaults::answer(const SyscallBatch& batch, const Ask& ask, State& state) {
  state.tsc = batch.value<int>(ask.tsc) == PR_TSC_SIGSEGV;
  state.cpuid = ask.cpuid && batch.result(*ask.cpuid) == 0;
}

void InstructionFaults::encode_extension(const State& state, pb::extension_task& task) {
  if (state.tsc) task.mutable_thread()->set_tsc_faults(true);
  if (state.cpuid) task.mutable_thread()->set_cpuid_faults(true);
}

void InstructionFaults::decode_extension(const pb::extension_task& task, State& state) {
  state = {.tsc = task.thread().tsc_faults(), .cpuid = task.thread().cpuid_faults()};
}

void InstructionFaults::settle(const State& state, const SettleView&, SyscallBatch& batch) {
  // This program reads the counter: it cannot hand a fault on.
  if (state.tsc) batch.must(SYS_prctl, {PR_SET_TSC, PR_TSC_SIGSEGV, 0, 0, 0});
  if (state.cpuid) batch.must(SYS_arch_prctl, {ARCH_SET_CPUID, 0});
}

}  // namespace stasis
