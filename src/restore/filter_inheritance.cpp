#include "restore/filter_inheritance.h"

#include <algorithm>
#include <map>

#include "base/error.h"
#include "base/log.h"
#include "objects/task/own_status.h"

namespace stasis {

namespace {

// Room for the longest program, or for a clone.
constexpr size_t kFilterRoom = BPF_MAXINSNS * sizeof(sock_filter) + 1024;

void keep_common(std::optional<std::vector<uint32_t>>& prefix, std::span<const uint32_t> other) {
  if (!prefix) prefix.emplace(other.begin(), other.end());
  const auto end = std::mismatch(prefix->begin(), prefix->end(), other.begin(), other.end()).first;
  prefix->erase(end, prefix->end());
}

}  // namespace

FilterInheritance::FilterInheritance(const RestorePlan& plan) : plan_(plan) {
  for (const auto& p : plan.processes)
    for (const PlannedThread& t : p->threads) needed_ |= t.states.get<Seccomp>().mode != 0;
  if (own_status().seccomp != 0) log_info("This program runs under a seccomp filter, and so will all that it restores");
  if (!needed_) return;
  common_.resize(plan.tree.nodes.size());
  installed_.resize(plan.tree.nodes.size());
  for (size_t node = 0; node < plan.processes.size(); ++node) {
    node_of_[plan.processes[node].get()] = node;
    // A dead process has no filters to tell of.
    if (plan.processes[node]->zombie) continue;
    for (const PlannedThread& t : plan.processes[node]->threads) keep_common(common_[node], t.filters);
  }
  // Created before creator.
  for (auto it = plan.tree.steps.rbegin(); it != plan.tree.steps.rend(); ++it) {
    const TreeStep& step = *it;
    if (step.kind != TreeStep::Kind::create) continue;
    const int creator = plan.tree.nodes[static_cast<size_t>(step.node)].creator;
    const auto& common = common_[static_cast<size_t>(step.node)];
    if (creator != kOutside && common) keep_common(common_[static_cast<size_t>(creator)], *common);
  }
}

void FilterInheritance::suspend(Puppet& puppet) const {
  if (needed_) puppet.leader().suspend_seccomp();
}

void FilterInheritance::install_for_child(int creator, int child, Puppet& puppet, StopWaiter& waiter) {
  if (!needed_) return;
  const auto& common = common_[static_cast<size_t>(creator)];
  size_t& installed = installed_[static_cast<size_t>(creator)];
  if (common) {
    install(puppet, puppet.pid(), std::span(*common).subspan(installed), waiter);
    installed = common->size();
  }
  installed_[static_cast<size_t>(child)] = installed;
}

void FilterInheritance::install_all(const PlannedProcess& p, Puppet& puppet, StopWaiter& waiter) {
  if (!needed_) return;
  const std::span<const uint32_t> filters = p.threads.front().filters;
  install(puppet, p.threads.front().tid, filters.subspan(installed_[node_of_.at(&p)]), waiter);
}

bool FilterInheritance::clone_threads(const PlannedProcess& p, Puppet& puppet, StopWaiter& waiter) {
  if (!needed_ || std::all_of(p.threads.begin(), p.threads.end(), [](const auto& t) { return t.filters.empty(); }))
    return false;
  Members members;
  for (const PlannedThread& t : p.threads) members.push_back(&t);
  clone_members(puppet, std::move(members), installed_[node_of_.at(&p)], waiter);
  // They were cloned in the order of their chains.
  puppet.sort_threads(p.thread_order());
  return true;
}

// The first member exists and has `depth` filters, which all members have; the others do not exist yet.
void FilterInheritance::clone_members(Puppet& puppet, Members members, size_t depth, StopWaiter& waiter) {
  const PlannedThread& first = *members.front();
  std::optional<std::vector<uint32_t>> common;
  for (const PlannedThread* t : members) keep_common(common, t->filters);
  install(puppet, first.tid, std::span(*common).subspan(depth), waiter);
  depth = common->size();

  // By the next filter; none: they have all of theirs.
  std::map<std::optional<uint32_t>, Members> groups;
  for (const PlannedThread* t : members)
    groups[t->filters.size() == depth ? std::nullopt : std::optional(t->filters[depth])].push_back(t);
  std::vector<pid_t> wanted;
  for (const auto& [next, group] : groups)
    for (const PlannedThread* t : group)
      if (t != &first && (!next || t == group.front())) wanted.push_back(t->tid);
  puppet.clone_threads(puppet.thread(first.tid), wanted, kFilterRoom, waiter);
  for (auto& [next, group] : groups)
    if (next) clone_members(puppet, std::move(group), depth, waiter);
}

void FilterInheritance::install(Puppet& puppet, pid_t tid, std::span<const uint32_t> filters,
                                StopWaiter& waiter) const {
  SyscallBatch batch;
  const auto run = [&] {
    // The slot of the leader, which is at rest, has room for the longest program.
    if (!batch.empty()) puppet.host().run(puppet.thread(tid), 0, batch, waiter);
    batch.clear();
  };
  for (const uint32_t filter : filters) {
    plan_.filters.install(filter, batch);
    if (batch.size() + kFilterRoom > kLeaderSlotBytes) run();
  }
  run();
}

}  // namespace stasis
