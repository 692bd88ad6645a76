#include "objects/task/refused_state.h"

#include <fmt/format.h>
#include <unistd.h>

#include <optional>

#include "base/error.h"
#include "kernel/process.h"

namespace stasis {

namespace {

Error refused(std::string what, std::string remedy) {
  return Error(Reason::UNSUPPORTED_STATE, std::move(what)).remedy(std::move(remedy));
}

// The label under which a task is confined; nothing without a security module.
std::optional<std::string> confinement(ProcDir& proc) {
  try {
    const auto text = proc.try_read("attr/current");
    if (!text) return std::nullopt;
    std::string label(*text);
    while (!label.empty() && (label.back() == '\n' || label.back() == '\0')) label.pop_back();
    return label;
  } catch (const Error& e) {
    // EINVAL: no security module answers.
    if (e.reason() == Reason::TASK_VANISHED) throw;
    return std::nullopt;
  }
}

const std::optional<std::string>& own_confinement() {
  static const std::optional<std::string> label = [] {
    ProcDir self(getpid());
    return confinement(self);
  }();
  return label;
}

}  // namespace

void RefusedThreadState::look(const LookView& view, State&) {
  if (view.status.x86_shadow_stack)
    throw refused("it uses a shadow stack", "start it with GLIBC_TUNABLES=glibc.cpu.x86_shstk=off");
  uapi::ptrace_sud_config dispatch;
  // Kernels before 6.4 do not tell.
  if (ptrace_syscall_user_dispatch(view.tid, dispatch) == 0 && dispatch.mode != 0)
    throw refused("it catches its own system calls (PR_SET_SYSCALL_USER_DISPATCH)",
                  "tasks that emulate system calls, as Wine does, cannot be saved");
}

void RefusedProcessState::prepare(const ProcStatus&) {
  own_confinement();
}

void RefusedProcessState::look(const LookView& view, State&) {
  // What no module answers for this program it answers for no task.
  if (!own_confinement()) return;
  const auto label = confinement(view.proc);
  if (label != own_confinement())
    throw refused(fmt::format("it is confined by a security module as \"{}\"", label.value_or("")),
                  "run it unconfined, or run this program under the same label");
}

void RefusedProcessState::decode(const pb::core_entry& core, State&) {
  const pb::creds_entry& creds = core.thread_core().creds();
  if (creds.apparmor_data().empty() &&
      (creds.lsm_profile().empty() || creds.lsm_profile() == own_confinement().value_or("")))
    return;
  throw Error(Reason::IMAGE_UNSUPPORTED,
              fmt::format("the saved task was confined by a security module as \"{}\"", creds.lsm_profile()));
}

}  // namespace stasis
