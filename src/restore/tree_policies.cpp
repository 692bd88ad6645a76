// NUMA policies of mappings in the puppets of a tree.
#include <fmt/format.h>
#include <sys/syscall.h>

#include <algorithm>

#include "memory/numa.h"
#include "restore/tree.h"

namespace stasis {

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
    const NumberSet nodes =
        usable_nodes(policy.mode, policy.nodes,
                     fmt::format("the NUMA policy of mapping {:x}-{:x}", policy.start, policy.end), p.describe());
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
