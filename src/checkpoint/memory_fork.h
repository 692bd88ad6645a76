// Frozen copies of the memory of processes that are to run on: each borrowed process forks a child in a batch, which
// never runs. Its private memory stays what it was at that moment (copy on write), and is read while the process works.
//
// The child belongs to the process: it is in its control group and among its children, with no signal at its end and
// the same descriptor table (not a copy, which would keep files open). It is attached from its first instant and ends
// by itself if this program dies. It is the first that the kernel kills for lack of memory.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "base/fd.h"
#include "checkpoint/frozen_process.h"
#include "tracee/stop.h"
#include "tracee/tracee.h"

namespace stasis {

class MemoryForks {
 public:
  MemoryForks() = default;
  MemoryForks(const MemoryForks&) = delete;
  MemoryForks& operator=(const MemoryForks&) = delete;
  // Ends them like end(); failures are logged.
  ~MemoryForks();

  // Forks every process; all threads are stopped, the leaders borrowed. False if one of them cannot be forked, which is
  // logged with its reason: then none is, and memory has to be copied while they stand still.
  bool make(std::span<const std::unique_ptr<FrozenProcess>> processes, StopWaiter& waiter);

  // Of the i-th process. Descriptors of /proc/PID, owned by this object.
  pid_t pid(size_t i) const { return forks_[i].child.tid(); }
  int memory_fd(size_t i) const { return forks_[i].memory.get(); }
  int pagemap_fd(size_t i) const { return forks_[i].pagemap.get(); }

  // Ends the children. Each stays a zombie until its process has waited for it: one thread of the process is stopped
  // once more for that, for less than a millisecond. A process that cannot be stopped in time keeps the zombie; logged.
  void end() noexcept;

 private:
  struct Fork {
    pid_t parent = 0, thread = 0;  // thread: which waits for it
    bool filtered = false;         // has seccomp filters
    std::string name;
    Tracee child;
    Fd memory, pagemap;
  };
  void adopt(FrozenProcess& process, pid_t child, StopWaiter& waiter);
  static void kill(Fork& fork) noexcept;
  static void reap(const Fork& fork, pid_t child) noexcept;

  std::vector<Fork> forks_;
};

}  // namespace stasis
