#include "checkpoint/wait_begin.h"

#include <fmt/format.h>
#include <sched.h>
#include <unistd.h>

#include <map>

#include "base/error.h"
#include "base/log.h"
#include "base/nanoseconds.h"
#include "kernel/number_set.h"
#include "objects/task/timed_call.h"

namespace stasis {

namespace {

// The kernel does not tell of which width the code is; that of the narrower one lies low.
bool may_be_timed(const ProcSyscall& call) {
  const auto number = static_cast<uint64_t>(call.number);
  for (const bool compat : {false, true}) {
    if (compat && call.instruction_pointer >= arch::address_end(true, 0)) continue;
    const auto form = arch::native_form(number, compat);
    if (form && relative_timed_call(*form, call.args)) return true;
  }
  return false;
}

// CLOCK_MONOTONIC minus the clock by which tasks are accounted on a processor. That one leaves out what interrupts and
// the hypervisor took, so that it is another on each. To be told, this thread goes there.
std::optional<uint64_t> offset_of_processor(int processor, ProcDir& self) {
  NumberSet only;
  only.add(static_cast<uint32_t>(processor));
  if (set_affinity(0, only) != 0) return std::nullopt;
  std::optional<uint64_t> least;
  for (int tries = 0; tries < 3; ++tries) {
    sched_yield();  // brings the account up to date
    const auto own = parse_sched(self.read("sched"));
    // Whatever comes in between makes the offset larger, and a wait seem shorter: it will not end early.
    const uint64_t now = now_ns(CLOCK_MONOTONIC);
    if (!own) return std::nullopt;
    const uint64_t offset = now - own->exec_start_ns;
    if (!least || static_cast<int64_t>(offset - *least) < 0) least = offset;
  }
  return least;
}

}  // namespace

void WaitBegins::sample(std::span<const pid_t> pids) {
  for (pid_t pid : pids) {
    try {
      find(pid);
    } catch (const Error& e) {
      log_debug("{}", e.what());
    }
  }
  if (!begins_.empty()) convert_clocks();
}

void WaitBegins::find(pid_t pid) {
  ProcDir process(pid);
  for (pid_t tid : process.threads()) {
    const std::string thread = fmt::format("task/{}/", tid);
    const auto text = process.try_read((thread + "syscall").c_str());
    const auto call = text ? parse_syscall(*text) : std::nullopt;
    if (!call || !may_be_timed(*call)) continue;
    const auto times = process.try_read((thread + "sched").c_str());
    const auto sched = times ? parse_sched(*times) : std::nullopt;
    const auto stat = sched ? process.try_read((thread + "stat").c_str()) : std::nullopt;
    if (stat) begins_[tid] = {sched->exec_start_ns, sched->voluntary_switches, parse_stat(*stat).processor};
  }
}

void WaitBegins::convert_clocks() {
  NumberSet own;
  if (get_affinity(0, own) != 0) return begins_.clear();
  ProcDir self = ProcDir::of_thread(getpid(), gettid());
  std::map<int, std::optional<uint64_t>> offsets;
  for (const auto& [tid, begin] : begins_) offsets.try_emplace(begin.processor);
  for (auto& [processor, offset] : offsets) offset = offset_of_processor(processor, self);
  set_affinity(0, own);
  for (auto entry = begins_.begin(); entry != begins_.end();) {
    const auto& offset = offsets[entry->second.processor];
    if (offset) entry->second.slept_at_ns += *offset;
    entry = offset ? std::next(entry) : begins_.erase(entry);
  }
}

std::optional<uint64_t> WaitBegins::waited_ns(pid_t tid, uint64_t voluntary_switches) const {
  const auto begin = begins_.find(tid);
  if (begin == begins_.end()) return std::nullopt;
  // It went to sleep once more, in the stop. If it did so in between as well, this wait began a moment ago.
  if (voluntary_switches != begin->second.voluntary_switches + 1) return std::nullopt;
  const uint64_t now = now_ns(CLOCK_MONOTONIC);
  return now > begin->second.slept_at_ns ? now - begin->second.slept_at_ns : 0;
}

}  // namespace stasis
