#include "objects/task/rseq.h"

#include <linux/rseq.h>
#include <sys/syscall.h>

#include "base/error.h"
#include "kernel/process.h"

namespace stasis {

namespace {

uapi::ptrace_rseq_configuration configuration(pid_t tid) {
  uapi::ptrace_rseq_configuration config;
  const int result = ptrace_rseq_configuration(tid, config);
  // A kernel that does not know the request (before 5.13, or built without) tells EIO.
  if (result == -EIO)
    throw Error(Reason::FEATURE_MISSING, "the kernel does not tell where restartable sequences are registered")
        .remedy("use Linux 5.13 or newer");
  fail_if(result, "its restartable sequences cannot be read");
  return config;
}

// As struct rseq begins: cpu_id_start, cpu_id, rseq_cs, flags.
struct AreaStart {
  uint32_t cpu_id_start, cpu_id;
  uint64_t section;
  uint32_t flags;
};
static_assert(offsetof(AreaStart, section) == offsetof(struct rseq, rseq_cs) &&
              offsetof(AreaStart, flags) == offsetof(struct rseq, flags));

uint64_t leave_section(Tracee& thread, pid_t pid, uint64_t area_address) {
  if (area_address == 0) return 0;
  AreaStart area{};
  RseqSection section;
  // Unreadable memory is left to the kernel, which ends a thread with such an area.
  if (process_vm_read_all(pid, area_address, &area, sizeof area) != 0 || area.section == 0) return 0;
  if (process_vm_read_all(pid, area.section, &section, sizeof section) != 0) return 0;
  arch::Registers regs = thread.own_registers();
  if (!section.contains(arch::instruction_pointer(regs))) return 0;
  if (((area.flags | section.flags) & RSEQ_CS_FLAG_NO_RESTART_ON_SIGNAL) != 0) return area.section;
  arch::set_instruction_pointer(regs, section.abort_ip);
  thread.set_own_registers(regs);
  return 0;
}

}  // namespace

uint64_t fix_rseq_critical_section(Tracee& thread, pid_t pid) {
  return leave_section(thread, pid, configuration(thread.tid()).rseq_abi_pointer);
}

void put_back_rseq_section(const Rseq::State& state, pid_t pid) {
  if (state.area == 0 || state.section == 0) return;
  const uint64_t where = state.area + offsetof(AreaStart, section);
  fail_if(process_vm_write_all(pid, where, &state.section, sizeof state.section),
          "its restartable sequence cannot be put back");
}

void Rseq::look(const LookView& view, State& state) {
  const auto config = configuration(view.tid);
  state = {.area = config.rseq_abi_pointer, .size = config.rseq_abi_size, .signature = config.signature};
  state.section = leave_section(view.thread, view.tid, state.area);
}

void Rseq::encode(const State& state, pb::core_entry& core) {
  if (state.area == 0) return;
  pb::rseq_entry& out = *core.mutable_thread_core()->mutable_rseq_entry();
  out.set_rseq_abi_pointer(state.area);
  out.set_rseq_abi_size(state.size);
  out.set_signature(state.signature);
  if (state.section != 0) out.set_rseq_cs_pointer(state.section);
}

void Rseq::decode(const pb::core_entry& core, State& state) {
  const pb::rseq_entry& in = core.thread_core().rseq_entry();
  state = {.area = in.rseq_abi_pointer(),
           .size = in.rseq_abi_size(),
           .signature = in.signature(),
           .section = in.rseq_cs_pointer()};
}

void Rseq::settle(const State& state, const SettleView&, SyscallBatch& batch) {
  if (state.area != 0) batch.must(SYS_rseq, {state.area, state.size, 0, state.signature});
}

}  // namespace stasis
