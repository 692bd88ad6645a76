// How fast running programs write their private memory, found out from outside and in a few milliseconds.
#pragma once

#include <sys/types.h>

#include <span>

namespace stasis {

// The part of the present private writable pages of all these processes that changes in one second, extrapolated from a
// sample: 0.5 is half of them, and a program that rewrites its memory ten times a second shows some 10. Pages that get
// the same content again do not count. 0 for processes that cannot be looked at.
double written_a_second(std::span<const pid_t> pids);

}  // namespace stasis
