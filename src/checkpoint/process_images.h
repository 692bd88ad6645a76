// The images of one process: core, ids, mm, fs.
#pragma once

#include "checkpoint/frozen_process.h"
#include "image/store.h"

namespace stasis {

// core-TID.img of every thread, ids-PID.img, mm-PID.img, fs-PID.img.
void write_process_images(const FrozenProcess& process, ImageStore& store);

}  // namespace stasis
