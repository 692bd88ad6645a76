// The memory of a tree on its way into the images: which way it is held still, copied, stored.
//
// Tasks that run on are to be held briefly. Little memory is copied into memory of ours, and written when they run
// again. Much of it stays where it is in a fork of each process (memory_fork.h), unless the program writes it so fast
// that the copies the kernel then makes, page for page, cost it more than standing still.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/dump_options.h"
#include "base/workers.h"
#include "checkpoint/frozen_process.h"
#include "checkpoint/memory_fork.h"
#include "image/pagemap.h"
#include "image/store.h"
#include "memory/page_dump.h"
#include "memory/shmem.h"

namespace stasis {

class TreeMemory {
 public:
  using Processes = std::span<const std::unique_ptr<FrozenProcess>>;

  TreeMemory(const DumpOptions& options, ImageStore& store);

  // The steps of a dump, in this order. While the tasks still run: decides, and makes room.
  void prepare(std::span<const pid_t> pids, uint64_t private_bytes);
  // The memory is to be forked; after fork(): it is.
  bool forks() const { return forked_; }
  // When all is looked at: the workers copy, beside whatever else is done, if nothing is to be forked. The processes
  // outlive this object's use of them. `related`: some are parent and child.
  void start(Processes processes, bool related, Workers& workers);
  // All threads but the leaders are done with their batches.
  void fork(Workers& workers, StopWaiter& waiter);
  // Waits for the workers, and copies the shared objects. What did not fit into memory is in its file afterwards.
  void finish(std::span<const MemoryObject> objects, Workers& workers);
  // The tasks run, and their memory is forked: copies what the forks hold, and ends them.
  void drain();
  // Stores the rest.
  void store();

  const PageDumpStats& stats() const { return snapshot_.stats(); }

 private:
  void start_copies(Workers& workers);
  void copy(size_t i, TaskPages from);
  void store(size_t i);

  const DumpOptions& options_;
  ImageStore& store_;
  PageSnapshot snapshot_;
  Processes processes_;
  std::span<const MemoryObject> objects_;
  bool related_ = false;
  bool forked_ = false;
  std::vector<std::vector<uint64_t>> stack_pointers_;  // of all threads of each process
  std::vector<PageCopy> copies_;                       // of the processes, then of the shared objects
  std::vector<std::unique_ptr<PagemapWriter>> writers_;
  MemoryForks forks_;
};

}  // namespace stasis
