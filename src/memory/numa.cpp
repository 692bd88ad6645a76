#include "memory/numa.h"

#include <fmt/format.h>

#include "base/error.h"
#include "base/log.h"
#include "proto/extension.pb.h"

namespace stasis {

void encode_numa(uint32_t mode, const NumberSet& nodes, pb::extension_numa& out) {
  out.set_mode(mode);
  const auto words = nodes.words();
  out.mutable_nodes()->Add(words.begin(), words.end());
}

bool decode_numa(const pb::extension_numa& in, uint32_t& mode, NumberSet& nodes) {
  constexpr uint32_t kFlags = 7u << 13;  // MPOL_MODE_FLAGS
  constexpr uint32_t kLastMode = 6;      // MPOL_WEIGHTED_INTERLEAVE (6.9)
  mode = in.mode();
  nodes = NumberSet({in.nodes().data(), static_cast<size_t>(in.nodes().size())});
  return (mode & ~kFlags) <= kLastMode && nodes.words().size() <= NumberSet::kMostWords;
}

NumberSet usable_nodes(uint32_t mode, const NumberSet& nodes, std::string_view policy, const std::string& who) {
  constexpr uint32_t kRelativeNodes = 1u << 14;  // MPOL_F_RELATIVE_NODES
  if ((mode & kRelativeNodes) != 0 || nodes.empty()) return nodes;
  NumberSet out = nodes.common(nodes_with_memory());
  if (out.empty())
    throw Error(Reason::RESTORE_CALL_FAILED, fmt::format("none of the memory nodes of {} is here", policy))
        .object(who)
        .remedy("add --cpu-affinity ignore to let its memory be where that of this program may be");
  if (out != nodes) log_info("{}: {} names memory nodes that are not here", who, policy);
  return out;
}

}  // namespace stasis
