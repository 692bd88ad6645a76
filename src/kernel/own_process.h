// A process beside this one, for what must not end half-way when this one is killed, or what only another session can
// do.
#pragma once

#include <functional>

namespace stasis {

// Runs `work` in a process that shares memory and descriptors with this one, with all signals blocked, and waits for
// it. It goes on if this process is killed meanwhile. `work` must neither throw nor leave anything locked.
void in_own_process(const std::function<void()>& work);

}  // namespace stasis
