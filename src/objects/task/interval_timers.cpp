#include "objects/task/interval_timers.h"

#include <sys/syscall.h>
#include <sys/time.h>

#include "base/error.h"

namespace stasis {

namespace {

using Timer = IntervalTimers::Timer;
static_assert(sizeof(Timer) == sizeof(itimerval));

void encode_one(const Timer& timer, pb::itimer_entry& out) {
  out.set_isec(timer.interval_s);
  out.set_iusec(timer.interval_us);
  out.set_vsec(timer.value_s);
  out.set_vusec(timer.value_us);
}

Timer decode_one(const pb::itimer_entry& in) {
  constexpr uint64_t kMicroseconds = 1'000'000;
  constexpr uint64_t kLongest = uint64_t{1} << 62;
  if (in.iusec() >= kMicroseconds || in.vusec() >= kMicroseconds || in.isec() > kLongest || in.vsec() > kLongest)
    throw Error(Reason::IMAGE_CORRUPT, "an interval timer has an impossible time");
  return {.interval_s = in.isec(), .interval_us = in.iusec(), .value_s = in.vsec(), .value_us = in.vusec()};
}

}  // namespace

void IntervalTimers::ask(const LookView&, SyscallBatch& batch, Ask& ask, State& state) {
  ask.timers = batch.space(sizeof state.timers);
  for (size_t which = 0; which < state.timers.size(); ++which)
    batch.must(SYS_getitimer, {which, ask.timers.part(which * sizeof(Timer), sizeof(Timer))});
}

void IntervalTimers::answer(const SyscallBatch& batch, const Ask& ask, State& state) {
  state.timers = batch.value<decltype(state.timers)>(ask.timers);
}

void IntervalTimers::encode(const State& state, pb::core_entry& core) {
  pb::task_timers_entry& out = *core.mutable_tc()->mutable_timers();
  encode_one(state.timers[ITIMER_REAL], *out.mutable_real());
  encode_one(state.timers[ITIMER_VIRTUAL], *out.mutable_virt());
  encode_one(state.timers[ITIMER_PROF], *out.mutable_prof());
}

void IntervalTimers::decode(const pb::core_entry& core, State& state) {
  const pb::task_timers_entry& in = core.tc().timers();
  state.timers[ITIMER_REAL] = decode_one(in.real());
  state.timers[ITIMER_VIRTUAL] = decode_one(in.virt());
  state.timers[ITIMER_PROF] = decode_one(in.prof());
}

void IntervalTimers::arm(const State& state, const SettleView&, SyscallBatch& batch) {
  for (size_t which = 0; which < state.timers.size(); ++which) {
    const Timer& timer = state.timers[which];
    if ((timer.value_s | timer.value_us) != 0) batch.must(SYS_setitimer, {which, batch.object(timer), nullptr});
  }
}

}  // namespace stasis
