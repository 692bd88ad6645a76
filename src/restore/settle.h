// The last steps of a restore, from a tree with its memory to a tree that runs.
#pragma once

#include "restore/tree.h"

namespace stasis {

// Descriptors, directories and umask of one process. Its table holds only the channel before, and what was saved after.
void hand_over_files(PuppetTree& tree, const PlannedProcess& p, RestoredFiles& files, StopWaiter& waiter);

// Everything that tasks set for themselves, and what the controller sets from outside.
void settle(PuppetTree& tree, const PlannedProcess& p, const RestoredFiles& files, const RestoreOptions& options,
            StopWaiter& waiter);

// Timers armed, sleeping calls begun again, area unmapped, final registers in all threads. Afterwards the process is
// what it was, and stands still.
void make_ready(PuppetTree& tree, const PlannedProcess& p, const RestoreOptions& options, StopWaiter& waiter);

}  // namespace stasis
