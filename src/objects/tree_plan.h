// How a process tree is made so that every process gets the parent, session, group and shared tables that it had.
//
// A session is inherited at birth or made by its leader (O-15); a table is shared at birth only; a parent is the
// creator until that ends, then the nearest sub-reaper above. So a process may have to be created by another one than
// its parent, through a temporary process that ends at once; and sessions and groups whose leader is gone need one that
// has its pid for a while. The plan is plain data: nodes, and steps in the order in which they are to be made.
//
// Nothing temporary is left: it ends before the tree is given its signals and its own sub-reapers (O-18, O-60), has no
// exit signal, and is waited for by its creator.
#pragma once

#include <signal.h>
#include <sys/types.h>

#include <cstdint>
#include <span>
#include <vector>

#include "base/error.h"

namespace stasis {

// Creator, reaper or parent outside of the tree: the program that restores it.
inline constexpr int kOutside = -1;

struct TreeProcess {
  pid_t pid = 0, pgid = 0, sid = 0;
  int parent = kOutside;  // index of a process before it; kOutside for the first one only
  // Numbers of descriptor table and fs struct: equal ones are shared. 0: it has none, being dead.
  uint32_t files = 0, fs = 0;
  int exit_signal = SIGCHLD;  // that tells the parent of its end; 0: none
};

// What is outside of the tree and is not made: the session and the group that the first process is born into. 0: none.
struct TreeSurroundings {
  pid_t sid = 0, pgid = 0;
};

struct TreeNode {
  pid_t pid = 0;     // 0: any that is free
  int process = -1;  // index; -1: it is temporary
  int creator = kOutside;
  bool temporary() const { return process < 0; }
};

struct TreeStep {
  enum class Kind {
    create,       // `node` is born of its creator; `tables`: what it shares with it (CLONE_FILES | CLONE_FS)
    new_session,  // it calls setsid
    join_group,   // it calls setpgid(0, pgid)
    unshare,      // it gets `tables` of its own, copies of what it shares
    end,          // a temporary one ends; its children become those of `reaper`; its creator waits for it
  };
  Kind kind;
  int node;
  uint64_t tables = 0;
  pid_t pgid = 0;
  int reaper = kOutside;
};

struct TreePlan {
  // The processes by their index, then the temporary ones.
  std::vector<TreeNode> nodes;
  std::vector<TreeStep> steps;
};

// Throws an Error with the given reason that names the process whose place cannot be made.
TreePlan plan_tree(std::span<const TreeProcess> processes, const TreeSurroundings& outside, Reason refusal);

// Whether a process group has nobody whose parent is in its session but not in the group: the stop signals of job
// control have no effect in it. Dead members do not count (no table).
bool is_orphaned_group(std::span<const TreeProcess> processes, pid_t pgid);

// True when every process can be born of its parent as it is, which is nearly always so. Costs little.
bool is_plain_tree(std::span<const TreeProcess> processes);

}  // namespace stasis
