// NUMA policies (set_mempolicy(2), mbind(2)) in images and at the restore: a mode with its flags, and nodes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "kernel/number_set.h"

namespace stasis::pb {
class extension_numa;
}  // namespace stasis::pb

namespace stasis {

void encode_numa(uint32_t mode, const NumberSet& nodes, pb::extension_numa& out);
// False for what no kernel has.
bool decode_numa(const pb::extension_numa& in, uint32_t& mode, NumberSet& nodes);

// The nodes that can be asked for here; those that are not here are left out, which is logged. `policy` and `who` are
// for messages: "the NUMA policy of thread 7", "pid 42 (name)". Throws RESTORE_CALL_FAILED when none of them is here.
NumberSet usable_nodes(uint32_t mode, const NumberSet& nodes, std::string_view policy, const std::string& who);

}  // namespace stasis
