// The images of one process: core, ids, mm, fs.
#pragma once

#include "checkpoint/frozen_process.h"
#include "image/extension.h"
#include "image/store.h"

namespace stasis {

// core-TID.img of every thread, ids-PID.img, mm-PID.img, fs-PID.img.
void write_process_images(const FrozenProcess& process, ImageStore& store);

// The records of its threads in extension.img.
void write_extension(const FrozenProcess& process, ExtensionWriter& extension);

// core-PID.img of a dead process that nobody has waited for.
void write_zombie_images(const ProcStat& stat, ImageStore& store, ExtensionWriter& extension);

}  // namespace stasis
