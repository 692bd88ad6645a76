// Sleeping calls that go on with the time that was left.
#pragma once

#include "objects/task/registers.h"
#include "tracee/puppet.h"

namespace stasis {

// Makes the thread start its interrupted call (nanosleep, poll, futex ...) again with what was left of its limit, and
// interrupts it: then the thread has the restart block that its saved registers go on with (O-65). A call that ends at
// once, because its limit is over or what it waits for has come, is finished with its result. If nobody knows what was
// left, the call is made again as a whole: it may wait longer in total, but its caller never sees an EINTR that nothing
// explains. The last thing the thread runs. `slot`: its place in the batch area. `regs`: the saved registers, which
// stand at the call.
void restart_sleep(Puppet& puppet, Tracee& thread, unsigned slot, const SleepRestart& sleep, arch::Registers& regs,
                   StopWaiter& waiter);

}  // namespace stasis
