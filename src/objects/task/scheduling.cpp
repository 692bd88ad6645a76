#include "objects/task/scheduling.h"

#include <fmt/format.h>
#include <sched.h>

#include <cerrno>

#include "base/error.h"
#include "base/log.h"
#include "kernel/process.h"

namespace stasis {

namespace {

constexpr uint64_t kFlagResetOnFork = 1;    // SCHED_FLAG_RESET_ON_FORK of sched_attr
constexpr uint64_t kDeadlineFlags = 2 | 4;  // SCHED_FLAG_RECLAIM, SCHED_FLAG_DL_OVERRUN
constexpr uint64_t kKeepAll = 8 | 16;       // SCHED_FLAG_KEEP_POLICY, SCHED_FLAG_KEEP_PARAMS
constexpr uint64_t kFlagClamps = 32 | 64;   // SCHED_FLAG_UTIL_CLAMP_MIN, SCHED_FLAG_UTIL_CLAMP_MAX
constexpr uint32_t kMostUtilisation = 1024;
constexpr uint32_t kDeadline = 6;
constexpr uint32_t kExtensible = 7;  // SCHED_EXT (6.12)

bool realtime(uint32_t policy) {
  return policy == SCHED_FIFO || policy == SCHED_RR;
}

// The only policies under which sched_setattr takes a nice value (fair_policy() in kernel/sched/sched.h).
bool takes_nice(uint32_t policy) {
  return policy == SCHED_OTHER || policy == SCHED_BATCH;
}

bool fair(uint32_t policy) {
  return takes_nice(policy) || policy == SCHED_IDLE;
}

// The time slice of threads that have none of their own, as this one; 0 before 6.12 and if this one is not fair.
uint64_t common_slice_ns() {
  static const uint64_t ns = [] {
    uapi::sched_attr own;
    return sched_getattr(0, own) == 0 && fair(own.sched_policy) ? own.sched_runtime : 0;
  }();
  return ns;
}

Scheduling::State from_kernel(const uapi::sched_attr& attr) {
  Scheduling::State out{.policy = attr.sched_policy,
                        .reset_on_fork = (attr.sched_flags & kFlagResetOnFork) != 0,
                        .nice = attr.sched_nice,
                        .priority = attr.sched_priority};
  if (attr.sched_policy == kDeadline)
    out.deadline = {.runtime_ns = attr.sched_runtime,
                    .deadline_ns = attr.sched_deadline,
                    .period_ns = attr.sched_period,
                    .flags = attr.sched_flags & kDeadlineFlags};
  else if (fair(attr.sched_policy) && common_slice_ns() != 0 && attr.sched_runtime != common_slice_ns())
    out.slice_ns = attr.sched_runtime;
  // Both are 0 on a kernel that has no clamps.
  if (attr.sched_util_max != 0) out.clamps = {.util_min = attr.sched_util_min, .util_max = attr.sched_util_max};
  return out;
}

[[noreturn]] void fail(const SettleView& view, int result, std::string what) {
  Error error = Error(result == -EPERM ? Reason::NO_PRIVILEGE : Reason::RESTORE_CALL_FAILED, std::move(what))
                    .object(view.who)
                    .error_number(-result);
  if (result == -EPERM) error.default_remedy("run the restore with CAP_SYS_NICE");
  if (result == -EBUSY) error.default_remedy("free processor time of the other tasks of SCHED_DEADLINE");
  throw error;
}

void set(const Scheduling::State& state, const SettleView& view) {
  uapi::sched_attr attr{.sched_policy = state.policy,
                        .sched_flags = state.reset_on_fork ? kFlagResetOnFork : 0,
                        .sched_nice = state.nice,
                        .sched_priority = state.priority,
                        .sched_runtime = state.slice_ns};
  if (state.policy == kDeadline) {
    attr.sched_flags |= state.deadline.flags;
    attr.sched_runtime = state.deadline.runtime_ns;
    attr.sched_deadline = state.deadline.deadline_ns;
    attr.sched_period = state.deadline.period_ns;
  }
  const int result = sched_setattr(view.tid, attr);
  if (result < 0)
    fail(view, result,
         fmt::format("scheduling policy {} with nice {} and priority {} cannot be set", state.policy, state.nice,
                     state.priority));
}

void set_clamps(const Scheduling::Clamps& clamps, const SettleView& view) {
  const uapi::sched_attr attr{
      .sched_flags = kKeepAll | kFlagClamps, .sched_util_min = clamps.util_min, .sched_util_max = clamps.util_max};
  const int result = sched_setattr(view.tid, attr);
  if (result == -EOPNOTSUPP)
    log_info("{}: this kernel has no utilisation clamps: those of thread {} are not set", view.who, view.tid);
  else if (result < 0)
    fail(view, result, fmt::format("the utilisation clamps {} and {} cannot be set", clamps.util_min, clamps.util_max));
}

}  // namespace

void Scheduling::prepare(const ProcStatus&) {
  common_slice_ns();
}

void Scheduling::look(const LookView& view, State& state) {
  uapi::sched_attr attr;
  fail_if(sched_getattr(view.tid, attr), "its scheduling cannot be read");
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
  if (!realtime(state.policy)) state.priority = 0;
}

void Scheduling::encode_extension(const State& state, pb::extension_task& task) {
  if (state.policy == kDeadline) {
    pb::extension_deadline& out = *task.mutable_thread()->mutable_deadline();
    out.set_runtime_ns(state.deadline.runtime_ns);
    out.set_deadline_ns(state.deadline.deadline_ns);
    out.set_period_ns(state.deadline.period_ns);
    out.set_flags(state.deadline.flags);
  }
  if (state.slice_ns != 0) task.mutable_thread()->set_slice_ns(state.slice_ns);
  if (state.clamps.util_min != 0) task.mutable_thread()->set_util_min(state.clamps.util_min);
  if (state.clamps.util_max != kMostUtilisation) task.mutable_thread()->set_util_max(state.clamps.util_max);
}

void Scheduling::decode_extension(const pb::extension_task& task, State& state) {
  const pb::extension_thread& in = task.thread();
  state.deadline = {.runtime_ns = in.deadline().runtime_ns(),
                    .deadline_ns = in.deadline().deadline_ns(),
                    .period_ns = in.deadline().period_ns(),
                    .flags = in.deadline().flags()};
  state.slice_ns = in.slice_ns();
  if (in.has_util_min()) state.clamps.util_min = in.util_min();
  if (in.has_util_max()) state.clamps.util_max = in.util_max();
  if ((state.deadline.flags & ~kDeadlineFlags) != 0 || state.clamps.util_max > kMostUtilisation ||
      state.clamps.util_min > state.clamps.util_max || in.has_deadline() != (state.policy == kDeadline) ||
      (state.slice_ns != 0 && !fair(state.policy)))
    throw Error(Reason::IMAGE_CORRUPT, "the scheduling of the thread makes no sense");
}

void Scheduling::apply(const State& state, const SettleView& view) {
  if (state.policy == kDeadline && state.deadline.runtime_ns == 0)
    throw Error(Reason::IMAGE_UNSUPPORTED, "it used SCHED_DEADLINE, and the images do not tell its parameters")
        .object(view.who);
  uapi::sched_attr attr;
  fail_if(sched_getattr(view.tid, attr), "the scheduling of a new task cannot be read");
  const State present = from_kernel(attr);
  if (state.clamps != present.clamps) set_clamps(state.clamps, view);
  State wanted = state;
  wanted.clamps = present.clamps;
  if (takes_nice(state.policy) && present == wanted) return;
  // A nice value that was set under an ordinary policy stays when another one follows.
  if (!takes_nice(state.policy)) set({.policy = SCHED_OTHER, .nice = state.nice}, view);
  set(state, view);
}

}  // namespace stasis
