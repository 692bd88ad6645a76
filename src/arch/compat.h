// Registers of a thread that runs code of another width than this program.
#pragma once

#include <cstddef>
#include <optional>
#include <span>

#include "arch/arch.h"

namespace stasis::arch {

// What ptrace gives for such a thread, widened. Nothing if it is no set of registers that this CPU has.
std::optional<Registers> widen_registers(std::span<const std::byte> given);

}  // namespace stasis::arch
