#include "objects/task/posix_timers.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/nanoseconds.h"
#include "kernel/uapi.h"

namespace stasis {

namespace {

using SavedTimer = PosixTimers::Timer;
using Times = PosixTimers::Times;
static_assert(sizeof(Times) == sizeof(itimerspec));

// struct sigevent as the kernel reads it.
struct KernelSigevent {
  uint64_t value = 0;
  int32_t signal = 0;
  int32_t notify = 0;
  int32_t thread = 0;
  int32_t padding[11] = {};
};
static_assert(sizeof(KernelSigevent) == 64);

constexpr int kThreadCpuClock = -2;  // as /proc shows CLOCK_THREAD_CPUTIME_ID

int notify_of(const PosixTimer& timer) {
  const int how = timer.notify == PosixTimer::Notify::signal ? SIGEV_SIGNAL
                  : timer.notify == PosixTimer::Notify::none ? SIGEV_NONE
                                                             : SIGEV_THREAD;
  return timer.thread_directed ? how | SIGEV_THREAD_ID : how;
}

// The thread as the task itself knows it.
int inner_thread(const LookView& view, pid_t tid) {
  if (view.status.ns_pid.size() <= 1) return tid;
  ProcDir thread = view.proc.thread(tid);
  return parse_status(thread.read("status")).ns_pid.innermost();
}

bool kernel_takes_timer_ids() {
  constexpr int kGet = 2;
  static const bool answer = prctl(uapi::pr_timer_create_restore_ids, kGet, 0, 0, 0) >= 0;
  return answer;
}

void create(const SavedTimer& timer, BatchData id, SyscallBatch& batch) {
  const KernelSigevent event{
      .value = timer.value, .signal = timer.signal, .notify = timer.notify, .thread = timer.thread};
  batch.must(SYS_timer_create, {timer.clock_id, batch.object(event), id});
}

}  // namespace

void PosixTimers::look(const LookView& view, State& state) {
  for (const PosixTimer& timer : parse_timers(view.proc.read("timers"))) {
    if (timer.clock_id == kThreadCpuClock)
      throw Error(Reason::UNSUPPORTED_STATE, fmt::format("its timer {} measures the CPU time of a thread", timer.id))
          .object(view.who)
          .remedy("the kernel does not tell of which thread: delete the timer before the dump");
    state.timers.push_back({.id = timer.id,
                            .clock_id = timer.clock_id,
                            .signal = timer.signo,
                            .notify = notify_of(timer),
                            .value = timer.sigval,
                            .thread = timer.thread_directed ? timer.target : 0});
  }
  // After the text of /proc is used up: looking up a thread reads there again.
  for (SavedTimer& timer : state.timers)
    if (timer.thread != 0) timer.thread = inner_thread(view, timer.thread);
  std::sort(state.timers.begin(), state.timers.end(),
            [](const SavedTimer& a, const SavedTimer& b) { return a.id < b.id; });
}

void PosixTimers::ask(const LookView& view, SyscallBatch& batch, Ask& ask, State& state) {
  ask.timers.clear();
  ask.timers.reserve(state.timers.size());
  ask.monotonic_ns = view.monotonic_ns;
  if (state.timers.empty()) return;
  ask.begin = batch.space(sizeof(timespec));
  batch.must(SYS_clock_gettime, {CLOCK_MONOTONIC, ask.begin});
  for (const SavedTimer& timer : state.timers) {
    const BatchData times = batch.space(sizeof(Times)), now = batch.space(sizeof(timespec));
    batch.must(SYS_timer_gettime, {timer.id, times});
    // Afterwards: whatever comes in between makes it late, never early.
    batch.must(SYS_clock_gettime, {CLOCK_MONOTONIC, now});
    ask.timers.push_back({.times = times, .now = now, .overrun = batch.must(SYS_timer_getoverrun, {timer.id})});
  }
}

void PosixTimers::answer(const SyscallBatch& batch, const Ask& ask, State& state) {
  constexpr unsigned kMostTries = 5;
  constexpr uint64_t kShort_ns = 100'000;
  if (state.timers.empty()) return;
  ++state.tries;
  state.interrupted = false;
  uint64_t before = nanoseconds(batch.value<timespec>(ask.begin));
  for (size_t i = 0; i < state.timers.size(); ++i) {
    SavedTimer& timer = state.timers[i];
    timer.times = batch.value<Times>(ask.timers[i].times);
    timer.overrun = static_cast<uint32_t>(batch.result(ask.timers[i].overrun));
    const uint64_t now = nanoseconds(batch.value<timespec>(ask.timers[i].now));
    state.interrupted |= state.tries < kMostTries && now - std::exchange(before, now) > kShort_ns;
    if (!ask.monotonic_ns || !timer.times.runs() || timer.measures_cpu_time()) continue;
    if (now > *ask.monotonic_ns) timer.times.set_left_ns(timer.times.left_ns() + now - *ask.monotonic_ns);
  }
}

bool PosixTimers::asks_again(const State& state) {
  return state.interrupted;
}

void PosixTimers::encode(const State& state, pb::core_entry& core) {
  for (const SavedTimer& timer : state.timers) {
    pb::posix_timer_entry& out = *core.mutable_tc()->mutable_timers()->add_posix();
    out.set_it_id(static_cast<uint32_t>(timer.id));
    out.set_clock_id(static_cast<uint32_t>(timer.clock_id));
    out.set_si_signo(static_cast<uint32_t>(timer.signal));
    out.set_it_sigev_notify(static_cast<uint32_t>(timer.notify));
    out.set_sival_ptr(timer.value);
    out.set_overrun(timer.overrun);
    out.set_isec(timer.times.interval_s);
    out.set_insec(timer.times.interval_ns);
    out.set_vsec(timer.times.value_s);
    out.set_vnsec(timer.times.value_ns);
    if (timer.thread != 0) out.set_notify_thread_id(timer.thread);
  }
}

void PosixTimers::decode(const pb::core_entry& core, State& state) {
  constexpr uint64_t kLongest_s = INT64_MAX / kSecond_ns;  // of the kernel
  for (const pb::posix_timer_entry& in : core.tc().timers().posix()) {
    if (in.insec() >= kSecond_ns || in.vnsec() >= kSecond_ns || in.vsec() > kLongest_s || in.si_signo() > 64 ||
        static_cast<int>(in.it_id()) < 0)
      throw Error(Reason::IMAGE_CORRUPT, "a POSIX timer makes no sense");
    state.timers.push_back(
        {.id = static_cast<int>(in.it_id()),
         .clock_id = static_cast<int>(in.clock_id()),
         .signal = static_cast<int>(in.si_signo()),
         .notify = static_cast<int>(in.it_sigev_notify()),
         .value = in.sival_ptr(),
         .thread = in.notify_thread_id(),
         .overrun = in.overrun(),
         .times = {.interval_s = in.isec(), .interval_ns = in.insec(), .value_s = in.vsec(), .value_ns = in.vnsec()}});
  }
  std::sort(state.timers.begin(), state.timers.end(),
            [](const SavedTimer& a, const SavedTimer& b) { return a.id < b.id; });
  for (size_t i = 1; i < state.timers.size(); ++i)
    if (state.timers[i].id == state.timers[i - 1].id)
      throw Error(Reason::IMAGE_CORRUPT, "two POSIX timers have the same id");
}

void create_posix_timers(const PosixTimers::State& state, bool kernel_takes_ids, SyscallBatch& batch) {
  if (state.timers.empty()) return;
  const BatchData id = batch.space(sizeof(int));
  if (kernel_takes_ids) {
    // The next id that the kernel gives follows the last one created: the timers come in ascending order.
    batch.must(SYS_prctl, {uapi::pr_timer_create_restore_ids, 1, 0, 0, 0});
    for (const SavedTimer& timer : state.timers) create(timer, batch.object(timer.id), batch);
    batch.must(SYS_prctl, {uapi::pr_timer_create_restore_ids, 0, 0, 0, 0});
    return;
  }
  // Before Linux 6.15 the ids of a process rise by one with each creation, from 0.
  constexpr int kHighest = 2000;
  if (state.timers.back().id > kHighest)
    throw Error(Reason::FEATURE_MISSING,
                fmt::format("the kernel cannot create a timer with the id {}", state.timers.back().id))
        .remedy("restore on Linux 6.15 or newer");
  int next = 0;
  for (const SavedTimer& timer : state.timers) {
    for (; next < timer.id; ++next) {
      create({.clock_id = CLOCK_MONOTONIC, .notify = SIGEV_NONE}, id, batch);
      batch.must(SYS_timer_delete, {next});
    }
    create(timer, id, batch);
    ++next;
  }
}

void PosixTimers::settle(const State& state, const SettleView&, SyscallBatch& batch) {
  create_posix_timers(state, kernel_takes_timer_ids(), batch);
}

void PosixTimers::arm(const State& state, const SettleView& view, SyscallBatch& batch) {
  for (const SavedTimer& timer : state.timers) {
    Times times = timer.times;
    if (!times.runs()) continue;
    const auto& clock = timer.clock_id == CLOCK_MONOTONIC  ? view.monotonic_ns
                        : timer.clock_id == CLOCK_BOOTTIME ? view.boottime_ns
                                                           : std::nullopt;
    // Exact, however long this batch takes to run. A timer of the real-time clock would become one that is set back
    // with it.
    if (clock)
      times.set_left_ns(*clock + times.left_ns());
    else if (!timer.measures_cpu_time())  // which stood still
      times.set_left_ns(std::max<uint64_t>(times.left_ns(), view.clocks_went_on_ns + 1) - view.clocks_went_on_ns);
    batch.must(SYS_timer_settime, {timer.id, clock ? TIMER_ABSTIME : 0, batch.object(times), nullptr});
  }
}

}  // namespace stasis
