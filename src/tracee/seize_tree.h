// Stopping a whole process tree, until nothing in it moves.
#pragma once

#include <sys/types.h>

#include <functional>
#include <span>
#include <vector>

#include "tracee/stop.h"
#include "tracee/tracee.h"

namespace stasis {

// One process of a seized tree.
struct SeizedProcess {
  pid_t pid = 0;
  pid_t parent = 0;             // its parent in the tree; 0 for the root
  bool zombie = false;          // its leader is dead: if there are no threads, all of it is, and not waited for
  std::vector<Tracee> threads;  // the leader first if it lives, the others ascending
};

struct SeizeOptions {
  Clock::time_point deadline;
  unsigned ptrace_options = 0;
};

// Seizes and stops `root` and everything below it, parents before children (depth first). All threads are seized before
// the first one is stopped, then all are asked to stop, then collected. Repeats until a scan made after the last stop
// finds nothing new. Threads of io_uring and vhost workers are left alone by the kernel's own flag at look time.
// `before_stop` is called with the processes found so far, right before the first thread is interrupted: the freeze
// begins when it returns. Throws NO_SUCH_TASK, KERNEL_THREAD, ALREADY_TRACED, NO_PRIVILEGE, FREEZE_TIMEOUT,
// VFORK_PENDING, OWN_ANCESTOR (this process is in the tree); everything seized so far is let go.
std::vector<SeizedProcess> seize_tree(pid_t root, StopWaiter& waiter, const SeizeOptions& options,
                                      const std::function<void(std::span<const pid_t>)>& before_stop = {});

}  // namespace stasis
