// The last steps of a restore, from a tree with its memory to a tree that runs.
#pragma once

#include <span>

#include "restore/clocks.h"
#include "restore/tree.h"

namespace stasis {

// The living processes of a plan. Every step below drives all of them at once: start all, then wait for all.
using Processes = std::span<const PlannedProcess* const>;

// Descriptors, directories and umask. The table of a process holds only the channels before, and what was saved after.
void hand_over_files(PuppetTree& tree, Processes processes, const RestoredFiles& files, StopWaiter& waiter);

// Everything that tasks set for themselves, and what the controller sets from outside.
void settle(PuppetTree& tree, Processes processes, RestoredFiles& files, const RestoreOptions& options,
            StopWaiter& waiter);

// Timers armed, sleeping calls begun again, area unmapped, final registers in all threads. Afterwards the processes are
// what they were, and stand still.
// `clocks`: of the tasks; nothing if they are the host's.
void make_ready(PuppetTree& tree, Processes processes, const RestoreOptions& options,
                const std::optional<RestoredClocks>& clocks, StopWaiter& waiter);

}  // namespace stasis
