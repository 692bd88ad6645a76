// The tree of puppets: processes with their memory, sessions, groups and threads.
#pragma once

#include <map>
#include <memory>
#include <unordered_map>
#include <vector>

#include "memory/fill.h"
#include "objects/files/restored_files.h"
#include "restore/plan.h"
#include "tracee/puppet.h"

namespace stasis {

class PuppetTree {
 public:
  PuppetTree(RestorePlan& plan, const ImageStore& store, RestoredFiles& files, StopWaiter& waiter);
  // Kills every puppet that was not released, and waits until their pids are free.
  ~PuppetTree();
  PuppetTree(const PuppetTree&) = delete;
  PuppetTree& operator=(const PuppetTree&) = delete;

  // Starts the root and, top down, fills each process and clones its children from it.
  void build();
  // Groups, then threads. Memory of all processes is final.
  void set_process_groups();
  void clone_threads();
  // Processes that are dead in the images die, and their parents are not told (O-53).
  void end_zombies();

  Puppet& puppet(const PlannedProcess& p) { return *by_process_.at(&p); }
  std::span<const std::unique_ptr<Puppet>> puppets() const { return puppets_; }
  const FdChannels& channels() const { return channels_; }
  // All puppets are on their own: the destructor leaves them alone.
  void released() {
    puppets_.clear();
    released_ = true;
  }
  uint64_t pages_filled() const { return stats_.written_pages; }
  uint64_t pages_shared() const { return stats_.kept_pages; }

 private:
  void start_root(PlannedProcess& root);
  void clone_children(PlannedProcess& parent);
  // Bottom half of a clone: memory of `p`, whose puppet has a copy of its parent's (or nothing, for the root).
  void start_memory(PlannedProcess& p);
  void finish_memory(PlannedProcess& p);
  void advise_memory(PlannedProcess& p);
  std::vector<AddressRange> inherited_ranges(const PlannedProcess& p) const;
  int shared_object(uint64_t shmid);
  int mapped_file(uint32_t id, uint32_t mode);
  void check_vdso(const PlannedProcess& p) const;
  const FillPlan& fill_plan(PlannedProcess& p);
  // The session and group that a process has at this moment of the building.
  struct Place {
    pid_t sid = 0, pgid = 0;
  };

  RestorePlan& plan_;
  const ImageStore& store_;
  RestoredFiles& files_;
  StopWaiter& waiter_;
  FdChannels channels_;
  std::vector<std::unique_ptr<Puppet>> puppets_;
  std::unordered_map<const PlannedProcess*, Puppet*> by_process_;
  std::unordered_map<const PlannedProcess*, Place> places_;
  std::unordered_map<const PlannedProcess*, std::unique_ptr<FillPlan>> fills_;
  std::unordered_map<const PlannedProcess*, std::unique_ptr<SyscallBatch>> batches_;
  std::map<uint64_t, Fd> shared_objects_;
  std::map<std::pair<uint32_t, uint32_t>, Fd> mapped_files_;
  FillStats stats_;
  bool released_ = false;
};

}  // namespace stasis
