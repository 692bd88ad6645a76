#include "objects/task/interval_timers.h"

#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>

#include "base/error.h"

namespace stasis {

namespace {

using Interval = IntervalTimers::Timer;
static_assert(sizeof(Interval) == sizeof(itimerval));

void encode_one(const Interval& timer, pb::itimer_entry& out) {
  out.set_isec(timer.interval_s);
  out.set_iusec(timer.interval_us);
  out.set_vsec(timer.value_s);
  out.set_vusec(timer.value_us);
}

Interval decode_one(const pb::itimer_entry& in) {
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
    batch.must(SYS_getitimer, {which, ask.timers.part(which * sizeof(Interval), sizeof(Interval))});
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

namespace {

constexpr uint64_t kSecond_us = 1'000'000;

Interval with_left(Interval timer, uint64_t left_us) {
  timer.value_s = left_us / kSecond_us;
  timer.value_us = left_us % kSecond_us;
  return timer;
}

// The kernel adds a tick when a timer of CPU time is armed (set_cpu_itimer()): without this it would gain one at every
// restore. The tick is the resolution of the coarse clocks.
Interval without_added_tick(const Interval& timer) {
  timespec tick{};
  clock_getres(CLOCK_MONOTONIC_COARSE, &tick);
  const uint64_t tick_us = static_cast<uint64_t>(tick.tv_nsec) / 1000;
  const uint64_t left_us = timer.value_s * kSecond_us + timer.value_us;
  return with_left(timer, left_us > tick_us ? left_us - tick_us : 1);  // 0 would disarm it
}

Interval at_restore(const Interval& timer, const SettleView& view) {
  constexpr uint64_t kMost_s = uint64_t{1} << 33;
  if (timer.value_s >= kMost_s) return timer;
  const uint64_t left_us = timer.value_s * kSecond_us + timer.value_us, went_on_us = view.clocks_went_on_ns / 1000;
  return with_left(timer, left_us > went_on_us ? left_us - went_on_us : 1);
}

}  // namespace

void IntervalTimers::arm(const State& state, const SettleView& view, SyscallBatch& batch) {
  for (size_t which = 0; which < state.timers.size(); ++which) {
    const Interval& saved = state.timers[which];
    if ((saved.value_s | saved.value_us) == 0) continue;
    // CPU time stood still.
    const Interval timer = which == ITIMER_REAL ? at_restore(saved, view) : without_added_tick(saved);
    batch.must(SYS_setitimer, {which, batch.object(timer), nullptr});
  }
}

}  // namespace stasis
