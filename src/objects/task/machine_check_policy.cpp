#include "objects/task/machine_check_policy.h"

#include <sys/prctl.h>
#include <sys/syscall.h>

#include "base/error.h"

namespace stasis {

void MachineCheckPolicy::look(const LookView& view, State& state) {
  // Flags of the task, as /proc/PID/stat shows them: no call in the task is needed.
  constexpr uint32_t kOwnPolicy = 0x00000080, kEarly = 0x08000000;  // PF_MCE_PROCESS, PF_MCE_EARLY
  state.kill = (view.stat.flags & kOwnPolicy) == 0 ? Kill::by_system
               : (view.stat.flags & kEarly) != 0   ? Kill::early
                                                   : Kill::late;
}

void MachineCheckPolicy::encode_extension(const State& state, pb::extension_task& task) {
  if (state.kill.value_or(Kill::by_system) != Kill::by_system)
    task.mutable_thread()->set_machine_check(static_cast<uint32_t>(*state.kill));
}

void MachineCheckPolicy::decode_extension(const pb::extension_task& task, State& state) {
  state.kill = Kill::by_system;
  if (!task.thread().has_machine_check()) return;
  state.kill = static_cast<Kill>(task.thread().machine_check());
  if (*state.kill != Kill::late && *state.kill != Kill::early)
    throw Error(Reason::IMAGE_CORRUPT, "the machine check policy is unknown");
}

void MachineCheckPolicy::settle(const State& state, const SettleView&, SyscallBatch& batch) {
  static const auto own = static_cast<Kill>(prctl(PR_MCE_KILL_GET, 0, 0, 0, 0));
  if (!state.kill || *state.kill == own) return;
  if (*state.kill == Kill::by_system)
    batch.must(SYS_prctl, {PR_MCE_KILL, PR_MCE_KILL_CLEAR, 0, 0, 0});
  else
    batch.must(SYS_prctl, {PR_MCE_KILL, PR_MCE_KILL_SET, static_cast<uint32_t>(*state.kill), 0, 0});
}

}  // namespace stasis
