#include "checkpoint/task_clocks.h"

#include <time.h>

namespace stasis {

namespace {

void set(pb::timespec& out, clockid_t clock, const ClockOffset& own, const ClockOffset& tasks) {
  timespec now{};
  clock_gettime(clock, &now);
  int64_t seconds = now.tv_sec - own.seconds + tasks.seconds;
  int64_t nanoseconds = now.tv_nsec - own.nanoseconds + tasks.nanoseconds;
  for (; nanoseconds < 0; nanoseconds += 1'000'000'000) --seconds;
  for (; nanoseconds >= 1'000'000'000; nanoseconds -= 1'000'000'000) ++seconds;
  out.set_tv_sec(static_cast<uint64_t>(seconds));
  out.set_tv_nsec(static_cast<uint64_t>(nanoseconds));
}

}  // namespace

pb::timens_entry read_task_clocks(ProcDir& task, const TimeNsOffsets& own) {
  const TimeNsOffsets tasks = parse_timens_offsets(task.read("timens_offsets"));
  pb::timens_entry out;
  set(*out.mutable_monotonic(), CLOCK_MONOTONIC, own.monotonic, tasks.monotonic);
  set(*out.mutable_boottime(), CLOCK_BOOTTIME, own.boottime, tasks.boottime);
  return out;
}

}  // namespace stasis
