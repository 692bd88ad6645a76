// NUMA policies of mappings in the puppets of a tree.
#include <fmt/format.h>
#include <linux/mempolicy.h>
#include <sys/syscall.h>

#include <algorithm>

#include "base/error.h"
#include "base/log.h"
#include "restore/tree.h"

namespace stasis {

namespace {

constexpr uint32_t kRelativeNodes = 1u << 14;  // MPOL_F_RELATIVE_NODES

NumberSet usable_nodes(const AreaPolicy& policy, const std::string& who) {
  if ((policy.mode & kRelativeNodes) != 0 || policy.nodes.empty()) return policy.nodes;
  static const NumberSet here = nodes_with_memory();
  NumberSet out = policy.nodes.common(here);
  const std::string area = fmt::format("mapping {:x}-{:x}", policy.start, policy.end);
  if (out.empty())
    throw Error(Reason::RESTORE_CALL_FAILED,
                fmt::format("none of the memory nodes of the NUMA policy of {} is here", area))
        .object(who)
        .remedy("add --cpu-affinity ignore to let its memory be where that of this program may be");
  if (out != policy.nodes) log_info("{}: the NUMA policy of {} names memory nodes that are not here", who, area);
  return out;
}

}  // namespace

const AreaPolicy* PlannedProcess::policy_at(uint64_t start) const {
  const auto at = std::ranges::lower_bound(policies, start, {}, &AreaPolicy::start);
  return at != policies.end() && at->start == start ? &*at : nullptr;
}

bool PuppetTree::same_policy(const PlannedProcess& a, const PlannedProcess& b, uint64_t start) const {
  if (inherits_policies_ || (a.policies.empty() && b.policies.empty())) return true;
  const AreaPolicy* of_a = a.policy_at(start);
  const AreaPolicy* of_b = b.policy_at(start);
  if (of_a == nullptr || of_b == nullptr) return of_a == of_b;
  return of_a->mode == of_b->mode && of_a->nodes == of_b->nodes;
}

void PuppetTree::set_policies(const PlannedProcess& p, std::span<const AddressRange> inherited, SyscallBatch& batch,
                              const std::function<void()>& make_room) const {
  if (inherits_policies_) return;
  for (const AreaPolicy& policy : p.policies) {
    if (std::ranges::binary_search(inherited, policy.start, {}, &AddressRange::start)) continue;
    const NumberSet nodes = usable_nodes(policy, p.describe());
    const uint64_t bytes = policy.end - policy.start;
    if (nodes.empty()) {
      batch.must(SYS_mbind, {policy.start, bytes, policy.mode, nullptr, 0, 0});
    } else {
      // The call looks at one bit less than it is told.
      const BatchData words = batch.data(std::as_bytes(nodes.words()));
      batch.must(SYS_mbind, {policy.start, bytes, policy.mode, words, nodes.words().size() * 64 + 1, 0});
    }
    make_room();
  }
}

}  // namespace stasis
