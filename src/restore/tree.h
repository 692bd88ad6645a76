// The tree of puppets: processes with their memory, sessions, groups and threads.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <unordered_map>
#include <vector>

#include "base/workers.h"
#include "memory/fill.h"
#include "objects/files/restored_files.h"
#include "restore/filter_inheritance.h"
#include "restore/plan.h"
#include "restore/tree_vdso.h"
#include "tracee/puppet.h"

namespace stasis {

class PuppetTree {
 public:
  PuppetTree(RestorePlan& plan, const RestoreOptions& options, const ImageStore& store, RestoredFiles& files,
             StopWaiter& waiter);
  // Kills every puppet that was not released, and waits until their pids are free.
  ~PuppetTree();
  PuppetTree(const PuppetTree&) = delete;
  PuppetTree& operator=(const PuppetTree&) = delete;

  // Makes all processes by the steps of the plan, fills each before others are cloned from it, and ends the temporary
  // ones. `sibling`: the root is a child of this program's parent.
  void build(bool sibling);
  // Those of processes in which some have tables of their own, or those of all others.
  enum class Tables { own, of_leader };
  void clone_threads(Tables tables);
  // Processes that are dead in the images die (O-53), and stopped ones stop; they go on running batches.
  void end_zombies();
  void stop_processes();
  // The foreground groups of terminals, and processes that have none although their session has one.
  void settle_terminals();
  // The signals of these deaths and stops were seen long ago, or are among the saved pending ones.
  void forget_child_signals();

  Puppet& puppet(const PlannedProcess& p) { return *by_process_.at(&p); }
  std::span<const std::unique_ptr<Puppet>> puppets() const { return puppets_; }
  const FdChannels& channels() const { return channels_; }
  Workers& workers() { return *workers_; }
  // All puppets are on their own: the destructor leaves them alone.
  void released() {
    puppets_.clear();
    released_ = true;
  }
  uint64_t pages_filled() const { return stats_.written_pages; }
  uint64_t pages_shared() const { return stats_.kept_pages; }

 private:
  // tree_steps.cpp
  // Calls of one node, in order, and whom they create with what tables shared.
  struct Work {
    SyscallBatch batch;
    std::vector<std::pair<int, uint64_t>> born;
  };
  void start_outside(const TreeStep& step, bool sibling);
  static StubKind stub_kind(const PlannedProcess& p);
  Puppet::Shape stub_shape() const;
  void queue(const TreeStep& step);
  void run_queued();
  bool must_fill_before(int actor) const;
  void fill_born(bool queued_run = false);
  void fill_mapped();
  void come_to_rest(int node);
  void end_temporary(const TreeStep& step);
  // tree_terminals.cpp
  void take_terminal(int node);
  void call_with_terminal(Puppet& puppet, int fd, uint64_t request, const pid_t* group = nullptr);
  void adopt(const Puppet& creator, int node);
  PlannedProcess* process_of(int node) const;
  int exit_signal_of(int node) const;
  Puppet& puppet_at(int node) { return *by_node_[static_cast<size_t>(node)]; }
  pid_t pid_of(int node) const { return pids_[static_cast<size_t>(node)]; }
  // Bottom half of a clone: memory of `p`, whose puppet has a copy of its parent's (or nothing, for the root).
  void start_memory(PlannedProcess& p);
  void fill_memory(PlannedProcess& p);
  void finish_memory(PlannedProcess& p);
  void start_advice(PlannedProcess& p);
  // tree_policies.cpp
  bool same_policy(const PlannedProcess& a, const PlannedProcess& b, uint64_t start) const;
  void set_policies(const PlannedProcess& p, std::span<const AddressRange> inherited, SyscallBatch& batch,
                    const std::function<void()>& make_room) const;
  std::vector<AddressRange> inherited_ranges(const PlannedProcess& p) const;
  void clone_threads_with_tables(const PlannedProcess& p, Puppet& puppet);
  // tree_segments.cpp. `inherited`: ranges by address; `make_room` is called when the batch has grown.
  void attach_segments(const PlannedProcess& p, std::span<const AddressRange> inherited, SyscallBatch& batch,
                       const std::function<void()>& make_room) const;
  int shared_object(uint64_t shmid);
  int mapped_file(uint32_t id, uint32_t mode);

  // Pages of a process, on their way.
  struct PendingFill {
    FillPlan::ChildFill result;
    std::atomic<bool> done = false;
  };

  RestorePlan& plan_;
  const ImageStore& store_;
  RestoredFiles& files_;
  StopWaiter& waiter_;
  TreeVdso vdso_;
  FilterInheritance filters_;
  FdChannels channels_;
  std::vector<std::unique_ptr<Puppet>> puppets_;
  std::unordered_map<const PlannedProcess*, Puppet*> by_process_;
  std::vector<pid_t> pids_;       // by node of the plan
  std::vector<Puppet*> by_node_;  // null before it is born and after its end
  std::vector<std::unique_ptr<Puppet>> temporary_;
  std::map<int, Work> queued_;                  // by node that acts
  std::vector<std::pair<int, uint64_t>> born_;  // not filled yet, and what they share
  std::vector<PlannedProcess*> mapping_;        // whose memory was started
  std::set<int> led_;                           // nodes that made a group of their own
  bool begins_groups_ = false;                  // something queued does
  std::unordered_map<const PlannedProcess*, std::unique_ptr<PendingFill>> filling_;
  std::unordered_map<const PlannedProcess*, std::unique_ptr<SyscallBatch>> batches_;
  std::map<uint64_t, Fd> shared_objects_;
  std::map<std::pair<uint32_t, uint32_t>, Fd> mapped_files_;
  FillStats stats_;
  bool released_ = false;
  const bool inherits_policies_;  // NUMA policies of mappings are not set
  std::optional<Workers> workers_{std::in_place};
};

}  // namespace stasis
