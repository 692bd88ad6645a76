// The plan of a restore: all images read, checked and put in relation, before anything is done.
#pragma once

#include <sys/types.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/restore_options.h"
#include "image/pagemap.h"
#include "image/store.h"
#include "memory/fill.h"
#include "memory/vma.h"
#include "memory/vma_extension.h"
#include "objects/ipc/sysv_shm.h"
#include "objects/task/seccomp.h"
#include "objects/task/task_state.h"
#include "objects/task_object.h"
#include "objects/thread_births.h"
#include "objects/tree_plan.h"
#include "proto/core.pb.h"
#include "proto/extension.pb.h"
#include "proto/fs.pb.h"
#include "proto/mm.pb.h"
#include "proto/timens.pb.h"

namespace stasis {

struct PlannedThread {
  explicit PlannedThread(pid_t t) : tid(t), states(Scope::thread) {}
  pid_t tid;
  ObjectStates states;
  std::vector<uint32_t> filters;  // of seccomp, in RestorePlan::filters, the first installed first
  // Of a thread that has tables of its own, and what its fs struct holds. Nothing: it shares those of the leader.
  std::optional<ThreadTables> tables;
  pb::fs_entry fs;
};

struct PlannedProcess {
  PlannedProcess() : states(Scope::process) {}
  std::string describe() const;
  // The first address that is not its own.
  uint64_t address_end() const;
  // Has the kind of address space that the kernel gives to a program like `other`.
  bool same_address_space(const PlannedProcess& other) const {
    return compat == other.compat && address_end() == other.address_end();
  }

  pid_t pid = 0, pgid = 0, sid = 0;
  PlannedProcess* parent = nullptr;
  // Whose memory it has a copy of when it is born; null: nothing. Mostly, but not always, its parent.
  PlannedProcess* origin = nullptr;
  // It has to execute a program of its width, when it is born: what its creator is has another address space.
  bool executes = false;
  std::string name;
  bool compat = false;  // a program of the narrower width (arch::is_compat())
  bool zombie = false;  // has a place in the tree, a name and a status, nothing else
  TaskState::State task;
  ObjectStates states;
  // The living ones, the leader first. One that has ended (TaskState::leader_status) has the puppet's part in making
  // the process, and ends then.
  std::vector<PlannedThread> threads;
  bool leader_has_ended() const { return !threads.empty() && threads.front().tid != pid; }
  // Ids of the threads of its puppet: before a leader that has ended does so.
  std::vector<pid_t> thread_order() const;
  // In what order threads are cloned, if some have tables of their own; else empty.
  std::vector<ThreadBirth> thread_births;
  pb::task_kobj_ids_entry ids;
  pb::mm_entry mm;
  pb::fs_entry fs;
  VmaList vmas;
  std::vector<AreaPolicy> policies;  // ascending
  const AreaPolicy* policy_at(uint64_t start) const;
  std::optional<PagemapReader> pages;
  std::optional<FillPlan> fill;
};

struct RestorePlan {
  std::vector<std::unique_ptr<PlannedProcess>> processes;  // parents before children
  PlannedProcess& root() { return *processes.front(); }
  SeccompFilters filters;
  std::map<uint64_t, SysvSegment> segments;  // by id
  // Clocks as the tasks saw them at the dump.
  std::optional<pb::timens_entry> clocks;
  std::optional<pb::extension_head> extension;  // not in dumps of other programs
  // An address range that is free in every process, for the batch area.
  uint64_t area_address = 0;
  unsigned area_slots = 1;
  // Node i makes process i.
  TreePlan tree;
  size_t threads = 0;
};

// How large the batch area of a puppet is.
inline constexpr size_t kLeaderSlotBytes = 128 * 1024;
inline constexpr size_t kThreadSlotBytes = 16 * 1024;  // the tiles of AMX fit
inline constexpr unsigned kThreadSlots = 32;

// What is mapped in any process of the tree, the batch area included once it has a place; by address.
std::vector<Mapping> taken_ranges(const RestorePlan& plan);

// Throws IMAGE_*, PID_TAKEN, NOT_SESSION_LEADER ... : no side effect.
RestorePlan read_plan(ImageStore& store, const RestoreOptions& options);

}  // namespace stasis
