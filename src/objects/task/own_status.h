// What tasks made by this program inherit from it: state that equals it need not be set again.
#pragma once

#include "kernel/proc_task.h"

namespace stasis {

// /proc status of the calling thread, read at the first call. The program does not change its credentials or signal
// handlers while it restores.
const ProcStatus& own_status();

}  // namespace stasis
