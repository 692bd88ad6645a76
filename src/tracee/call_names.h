// Names of system calls for messages.
#pragma once

#include <string>

namespace stasis {

// "mmap"; "system call 999" for an unknown number. Native numbers of this CPU.
std::string call_name(long number);

}  // namespace stasis
