// Stopping a run from outside: SIGINT and SIGTERM set a flag, long work looks at it.
#pragma once

namespace stasis {

// From here on SIGINT, SIGTERM and SIGHUP mark this process as interrupted instead of ending it, and ends of
// children are told.
void install_interrupt_handlers();
bool interrupted() noexcept;
// Throws Reason::INTERRUPTED naming the signal. Called between stages and in every wait; what is under way is undone
// like after any error.
void check_interrupted();
// The signal that came, once; 0 if none did.
int take_interrupt() noexcept;
// Interruptions are no longer acted upon: the run has passed the point of no return.
void ignore_interrupts();

}  // namespace stasis
