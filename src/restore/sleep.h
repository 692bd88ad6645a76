// Sleeping calls that go on with the time that was left.
#pragma once

#include "objects/task/registers.h"
#include "tracee/puppet.h"

namespace stasis {

// Makes the thread start its interrupted nanosleep or clock_nanosleep again, with what the kernel had written as
// remaining, and interrupts it: then the thread has the restart block that its saved registers go on with (O-65). A
// call whose remaining time nobody knows (no place for it was given, or another call) is made again as a whole: it may
// wait longer in total, but its caller never sees an EINTR that nothing explains. The last thing the thread runs.
// `slot`: its place in the batch area. Returns the number of the call that the thread is to go on with.
uint64_t restart_sleep(Puppet& puppet, Tracee& thread, unsigned slot, const SleepRestart& sleep, StopWaiter& waiter);

}  // namespace stasis
