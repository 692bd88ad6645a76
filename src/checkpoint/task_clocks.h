// The clocks as tasks in a time namespace of theirs read them.
#pragma once

#include "base/nanoseconds.h"
#include "kernel/proc.h"
#include "proto/timens.pb.h"

namespace stasis {

// CLOCK_MONOTONIC and CLOCK_BOOTTIME of the task at the moment when those of this program read `now`. `own`: the
// offsets of this program.
pb::timens_entry read_task_clocks(ProcDir& task, const TimeNsOffsets& own, const ClockReading& now);

}  // namespace stasis
