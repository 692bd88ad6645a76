#include "objects/task/scheduling.h"

#include <fmt/format.h>
#include <sched.h>

#include <cerrno>

#include "base/error.h"
#include "kernel/process.h"

namespace stasis {

namespace {

constexpr uint64_t kFlagResetOnFork = 1;  // SCHED_FLAG_RESET_ON_FORK of sched_attr
constexpr uint32_t kDeadline = 6;
constexpr uint32_t kExtensible = 7;  // SCHED_EXT (6.12)

bool realtime(uint32_t policy) {
  return policy == SCHED_FIFO || policy == SCHED_RR;
}

// The only policies under which sched_setattr takes a nice value (fair_policy() in kernel/sched/sched.h).
bool takes_nice(uint32_t policy) {
  return policy == SCHED_OTHER || policy == SCHED_BATCH;
}

Scheduling::State from_kernel(const uapi::sched_attr& attr) {
  return {.policy = attr.sched_policy,
          .reset_on_fork = (attr.sched_flags & kFlagResetOnFork) != 0,
          .nice = attr.sched_nice,
          .priority = attr.sched_priority};
}

void set(const Scheduling::State& state, const SettleView& view) {
  const uapi::sched_attr attr{.sched_policy = state.policy,
                              .sched_flags = state.reset_on_fork ? kFlagResetOnFork : 0,
                              .sched_nice = state.nice,
                              .sched_priority = state.priority};
  const int result = sched_setattr(view.tid, attr);
  if (result == 0) return;
  Error error = Error(result == -EPERM ? Reason::NO_PRIVILEGE : Reason::RESTORE_CALL_FAILED,
                      fmt::format("scheduling policy {} with nice {} and priority {} cannot be set", state.policy,
                                  state.nice, state.priority))
                    .object(view.who)
                    .error_number(-result);
  if (result == -EPERM) error.default_remedy("run the restore with CAP_SYS_NICE");
  throw error;
}

}  // namespace

void Scheduling::look(const LookView& view, State& state) {
  uapi::sched_attr attr;
  fail_if(sched_getattr(view.tid, attr), "its scheduling cannot be read");
  if (attr.sched_policy == kDeadline)
    throw Error(Reason::UNSUPPORTED_STATE, "it is scheduled by SCHED_DEADLINE")
        .object(view.who)
        .remedy("give it another policy, with chrt, before the dump");
  state = from_kernel(attr);
  // Under a real-time policy sched_getattr leaves the nice value out.
  state.nice = view.stat.nice;
}

void Scheduling::encode(const State& state, pb::core_entry& core) {
  pb::thread_core_entry& out = *core.mutable_thread_core();
  // The flag is part of the policy as sched_setscheduler(2) takes it.
  out.set_sched_policy(state.policy | (state.reset_on_fork ? uint32_t{SCHED_RESET_ON_FORK} : 0));
  out.set_sched_nice(state.nice);
  out.set_sched_prio(state.priority);
}

void Scheduling::decode(const pb::core_entry& core, State& state) {
  const pb::thread_core_entry& in = core.thread_core();
  constexpr uint32_t kFlag = SCHED_RESET_ON_FORK;
  state = {.policy = in.sched_policy() & ~kFlag,
           .reset_on_fork = (in.sched_policy() & kFlag) != 0,
           .nice = in.sched_nice(),
           .priority = in.sched_prio()};
  if (state.policy > kExtensible || state.nice < -20 || state.nice > 19 || state.priority > 99)
    throw Error(Reason::IMAGE_CORRUPT, "the scheduling of the thread makes no sense");
  if (state.policy == kDeadline) throw Error(Reason::IMAGE_UNSUPPORTED, "the saved thread used SCHED_DEADLINE");
  if (!realtime(state.policy)) state.priority = 0;
}

void Scheduling::apply(const State& state, const SettleView& view) {
  uapi::sched_attr attr;
  fail_if(sched_getattr(view.tid, attr), "the scheduling of a new task cannot be read");
  if (takes_nice(state.policy) && from_kernel(attr) == state) return;
  // A nice value that was set under an ordinary policy stays when another one follows.
  if (!takes_nice(state.policy)) set({.policy = SCHED_OTHER, .nice = state.nice}, view);
  set(state, view);
}

}  // namespace stasis
