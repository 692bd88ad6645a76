// Seccomp filters that came by inheritance come back by inheritance: what a process and all that descends from it have
// in common is installed before its children are cloned, what some threads share before the others of them are cloned.
//
// All puppets run with seccomp suspended (they are cloned by one that does), so nothing here can be filtered (O-56).
#pragma once

#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "restore/plan.h"
#include "tracee/puppet.h"

namespace stasis {

class FilterInheritance {
 public:
  explicit FilterInheritance(const RestorePlan& plan);

  // Of a puppet that no other puppet cloned: seccomp is suspended in it, and so in all that it clones. Nothing if no
  // thread needs it.
  void suspend(Puppet& puppet) const;
  // Before the puppet of one node of the tree plan clones that of another.
  void install_for_child(int creator, int child, Puppet& puppet, StopWaiter& waiter);
  // All filters of the leader, in its puppet.
  void install_all(const PlannedProcess& p, Puppet& puppet, StopWaiter& waiter);
  // The leader's filters and all other threads, with theirs. False if the process has none: then nothing was done.
  bool clone_threads(const PlannedProcess& p, Puppet& puppet, StopWaiter& waiter);

 private:
  using Members = std::vector<const PlannedThread*>;
  void clone_members(Puppet& puppet, Members members, size_t depth, StopWaiter& waiter);
  void install(Puppet& puppet, pid_t tid, std::span<const uint32_t> filters, StopWaiter& waiter) const;

  const RestorePlan& plan_;
  bool needed_ = false;
  // By node: the filters, from the first, that it and all that come from it have in common (nothing: there is nobody
  // to ask), and how many of them its puppet has.
  std::vector<std::optional<std::vector<uint32_t>>> common_;
  std::vector<size_t> installed_;
  std::unordered_map<const PlannedProcess*, size_t> node_of_;
};

}  // namespace stasis
