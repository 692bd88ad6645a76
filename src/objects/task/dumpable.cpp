#include "objects/task/dumpable.h"

#include <sys/prctl.h>
#include <sys/syscall.h>

#include <string>

#include "base/error.h"
#include "kernel/proc.h"
#include "objects/task/own_status.h"

namespace stasis {

namespace {

constexpr int kRootOnly = 2;

int suid_dumpable() {
  const std::string text = read_system_file("sys/fs/suid_dumpable");
  return text.empty() ? 0 : text.front() - '0';
}

}  // namespace

void Dumpable::ask(const LookView&, SyscallBatch& batch, Ask& ask, State&) {
  ask.value = batch.must(SYS_prctl, {PR_GET_DUMPABLE, 0, 0, 0, 0});
}

void Dumpable::answer(const SyscallBatch& batch, const Ask& ask, State& state) {
  state.value = static_cast<int>(batch.result(ask.value));
}

void Dumpable::settle(const State& state, const SettleView& view, SyscallBatch& batch) {
  if (state.value < 0 || state.value > kRootOnly)
    throw Error(Reason::IMAGE_CORRUPT, "the dumpable attribute is out of range").object(view.who);
  if (state.value != kRootOnly) return;
  // prctl refuses this value. A change of credentials sets the attribute to the sysctl, where the saved value came
  // from. Done while the task still may change them; later changes set the same value.
  if (suid_dumpable() != kRootOnly)
    throw Error(Reason::RESTORE_CALL_FAILED, "its dumpable attribute 2 follows from the sysctl fs.suid_dumpable only")
        .object(view.who)
        .remedy("set the sysctl fs.suid_dumpable to 2 for the restore");
  const uint32_t own = own_status().uid[3];
  batch.must(SYS_setfsuid, {own + 1});
  batch.must(SYS_setfsuid, {own});
}

void Dumpable::arm(const State& state, const SettleView&, SyscallBatch& batch) {
  if (state.value != kRootOnly) batch.must(SYS_prctl, {PR_SET_DUMPABLE, state.value, 0, 0, 0});
}

}  // namespace stasis
