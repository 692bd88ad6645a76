#include "objects/task/task_state.h"

#include <signal.h>

#include "base/error.h"
#include "objects/task/thread_name.h"

namespace stasis {

void TaskState::look(const LookView& view, State& state) {
  state.stop_signal = view.thread.group_stop_signal();
  state.kind = state.stop_signal != 0 ? Kind::stopped : Kind::alive;
  // The kernel forgets the signal when somebody waits for the process (do_task_stat() shows group_exit_code).
  state.stop_collected = state.stop_signal != 0 && view.stat.exit_code == 0;
  state.exit_signal = view.stat.exit_signal;
  state.flags = view.stat.flags;
  state.comm = view.stat.comm;
  state.blocked = view.thread.own_signal_mask();
}

void TaskState::encode(const State& state, pb::core_entry& core) {
  pb::task_core_entry& out = *core.mutable_tc();
  out.set_task_state(static_cast<uint32_t>(state.kind));
  if (state.kind == Kind::stopped) out.set_stop_signo(static_cast<uint32_t>(state.stop_signal));
  out.set_exit_code(state.exit_code);
  out.set_flags(state.flags);
  out.set_comm(state.comm);
  out.set_blk_sigset(state.blocked);
  if (!out.has_personality()) out.set_personality(0);  // a required field, which dead tasks have no object for
}

void TaskState::decode(const pb::core_entry& core, State& state) {
  const pb::task_core_entry& in = core.tc();
  state.kind = static_cast<Kind>(in.task_state());
  switch (state.kind) {
    case Kind::alive:
    case Kind::dead:
    case Kind::zombie:
      break;
    case Kind::stopped:
      // Older images do not tell the signal.
      state.stop_signal = in.has_stop_signo() ? static_cast<int>(in.stop_signo()) : SIGSTOP;
      if (state.stop_signal != SIGSTOP && state.stop_signal != SIGTSTP && state.stop_signal != SIGTTIN &&
          state.stop_signal != SIGTTOU)
        throw Error(Reason::IMAGE_CORRUPT, "the signal that stopped the process stops none");
      break;
    default:
      throw Error(Reason::IMAGE_CORRUPT, "the state of the process is unknown");
  }
  state.exit_code = in.exit_code();
  state.flags = in.flags();
  state.comm = checked_task_name(in.comm());
  state.blocked = in.blk_sigset();
}

void TaskState::encode_extension(const State& state, pb::extension_task& task) {
  if (state.stop_collected) task.mutable_process()->set_stop_collected(true);
  if (state.exit_signal != SIGCHLD) task.mutable_process()->set_exit_signal(static_cast<uint32_t>(state.exit_signal));
  if (state.leader_status) task.mutable_process()->set_leader_status(*state.leader_status);
}

void TaskState::decode_extension(const pb::extension_task& task, State& state) {
  state.stop_collected = task.process().stop_collected();
  if (task.process().has_leader_status()) state.leader_status = task.process().leader_status();
  // A thread alone can end by exit(2) only.
  if (state.leader_status && (*state.leader_status & ~0xff00u) != 0)
    throw Error(Reason::IMAGE_CORRUPT, "its main thread has ended as none can");
  if (!task.process().has_exit_signal()) return;
  if (task.process().exit_signal() > 64)
    throw Error(Reason::IMAGE_CORRUPT, "the signal that tells of its end has an impossible number");
  state.exit_signal = static_cast<int>(task.process().exit_signal());
}

TaskState::State zombie_state(const ProcStat& stat) {
  return {.kind = TaskState::Kind::dead,
          .exit_code = static_cast<uint32_t>(stat.exit_code),
          .exit_signal = stat.exit_signal,
          .flags = stat.flags,
          .comm = stat.comm};
}

}  // namespace stasis
