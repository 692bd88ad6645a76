// A restore in a pid namespace that is made for the tree, so that its pids are free whatever runs outside.
//
// This program splits in two. The part inside is the first process of the namespace: it restores like any other, as
// pids mean there what they mean in the images, and stays as the init that collects orphans and ends with the last
// task. The part outside waits, passes signals on, and has the exit status. Only the pids are new: the tasks keep the
// caller's mounts, so that their /proc lists them by the pids outside.
#pragma once

#include <sys/types.h>

#include <optional>

#include "base/fd.h"

namespace stasis {

class PidNamespace {
 public:
  // Nothing: this is the part inside. A value: the part outside; what is inside is ready and on its own, or has ended,
  // and this is the exit status. The part inside is killed with the other one until the tree is released. Throws
  // NO_PRIVILEGE.
  std::optional<int> split();
  // Inside, when a detached tree runs: tells the part outside, and becomes a program of one page.
  [[noreturn]] void become_init();

 private:
  int wait_outside(pid_t inside, int done_fd);

  Fd done_;  // inside: the writing end; a byte says that the tree runs
};

// Inside, when the root of a tree in the foreground has ended: returns when no task is left, or when interrupted.
void await_last_task();

// The pid of a task of ours as the /proc of the caller shows it.
pid_t pid_outside(pid_t pid);

}  // namespace stasis
