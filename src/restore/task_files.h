// Files that only a task can make, because they belong to its memory or its credentials, and their mappings.
#pragma once

#include "objects/files/restored_files.h"
#include "restore/settle.h"
#include "restore/tree.h"

namespace stasis {

// All threads exist and have the descriptors that can be handed over. The first task with a descriptor of such a file
// makes it, others get a duplicate.
void make_files_in_tasks(PuppetTree& tree, Processes processes, RestoredFiles& files, StopWaiter& waiter);

}  // namespace stasis
