#include "objects/task/refused_state.h"

#include "base/error.h"
#include "kernel/process.h"

namespace stasis {

namespace {

Error refused(std::string what, std::string remedy) {
  return Error(Reason::UNSUPPORTED_STATE, std::move(what)).remedy(std::move(remedy));
}

}  // namespace

void RefusedState::look(const LookView& view, State&) {
  if (view.status.x86_shadow_stack)
    throw refused("it uses a shadow stack", "start it with GLIBC_TUNABLES=glibc.cpu.x86_shstk=off");
  uapi::ptrace_sud_config dispatch;
  // Kernels before 6.4 do not tell.
  if (ptrace_syscall_user_dispatch(view.tid, dispatch) == 0 && dispatch.mode != 0)
    throw refused("it catches its own system calls (PR_SET_SYSCALL_USER_DISPATCH)",
                  "tasks that emulate system calls, as Wine does, cannot be saved");
}

}  // namespace stasis
