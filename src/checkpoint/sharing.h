// Who of a dumped tree shares memory, handlers, descriptor tables and fs structs with whom.
#pragma once

#include <memory>
#include <span>

#include "checkpoint/frozen_process.h"
#include "checkpoint/kernel_ids.h"

namespace stasis {

using FrozenProcesses = std::span<const std::unique_ptr<FrozenProcess>>;

// Numbers for threads that have tables of their own, when all processes have theirs. Throws UNSUPPORTED_STATE if
// threads share them in a way that a restore cannot make.
void number_thread_tables(FrozenProcesses processes, KernelIdTable& ids);

// Of all processes, those of a shared table once.
size_t count_descriptors(FrozenProcesses processes);

// Throws UNSUPPORTED_STATE if processes share what this version cannot restore shared.
void check_sharing(FrozenProcesses processes);

}  // namespace stasis
