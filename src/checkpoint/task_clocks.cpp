#include "checkpoint/task_clocks.h"

namespace stasis {

namespace {

void set(pb::timespec& out, uint64_t own_ns, const ClockOffset& own, const ClockOffset& task) {
  const timespec read = to_timespec(own_ns);
  int64_t seconds = read.tv_sec - own.seconds + task.seconds;
  int64_t nanoseconds = read.tv_nsec - own.nanoseconds + task.nanoseconds;
  constexpr auto kSecond = static_cast<int64_t>(kSecond_ns);
  for (; nanoseconds < 0; nanoseconds += kSecond) --seconds;
  for (; nanoseconds >= kSecond; nanoseconds -= kSecond) ++seconds;
  out.set_tv_sec(static_cast<uint64_t>(seconds));
  out.set_tv_nsec(static_cast<uint64_t>(nanoseconds));
}

}  // namespace

pb::timens_entry read_task_clocks(ProcDir& task, const TimeNsOffsets& own, const ClockReading& now) {
  const TimeNsOffsets offsets = parse_timens_offsets(task.read("timens_offsets"));
  pb::timens_entry out;
  set(*out.mutable_monotonic(), now.monotonic_ns, own.monotonic, offsets.monotonic);
  set(*out.mutable_boottime(), now.boottime_ns, own.boottime, offsets.boottime);
  return out;
}

}  // namespace stasis
