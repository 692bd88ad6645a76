// A running process borrowed for a dump: stopped threads, a batch area in its memory, and everything put back at the
// end. A controller that is killed at any instant leaves the process unharmed: every thread then undoes, takes back its
// registers and goes on (the area and one private page of the vdso stay behind).
//
// Opening and closing come in two halves each, so that many processes can be driven at once: start all, then finish
// all.
#pragma once

#include <span>
#include <vector>

#include "base/address_range.h"
#include "base/fd.h"
#include "kernel/proc_maps.h"
#include "tracee/batch_host.h"

namespace stasis {

class Borrowed {
 public:
  struct Shape {
    unsigned slots = 1;
    size_t first_slot_bytes = 16384;
    size_t other_slot_bytes = 4096;
    uint64_t address = 0;  // where the area goes; 0: any free range
  };

  // `leader` is stopped with its own state saved and outlives this object. `mappings`: all of the process, ascending.
  // `memory`: /proc/PID/mem open for reading and writing.
  Borrowed(pid_t pid, std::string name, Tracee& leader, Fd memory);
  Borrowed(Borrowed&&) noexcept = default;
  // Removes the area if it is still there; failures are logged.
  ~Borrowed();

  // Makes the area. Throws NO_ROOM_FOR_BATCH, BATCH_CALL_FAILED.
  void start_open(std::span<const Mapping> mappings, const Shape& shape, ReportSignal report);
  void finish_open(StopWaiter& waiter);

  // Every other thread has been given back. Afterwards the leader has its own registers too.
  void start_close();
  void finish_close(StopWaiter& waiter);
  // The process is about to be killed: nothing needs to be removed.
  void abandon() { open_ = started_ = false; }

  BatchHost& host() { return host_; }
  const Fd& memory() const { return memory_; }

 private:
  void send_bootstrap(std::span<const arch::BootstrapCall> calls);
  int64_t await_bootstrap(StopWaiter& waiter);
  void clear_bootstrap();

  BatchHost host_;
  Tracee* leader_;
  Fd memory_;
  uint64_t hole_ = 0;
  size_t hole_used_ = 0;
  bool started_ = false;
  bool open_ = false;
};

// A place for `bytes` of bootstrap code: free bytes behind the end of the vdso image, else in the spare room of an area
// that a dead controller left. 0 if there is none. Reads the task's memory through `memory_fd`.
uint64_t find_bootstrap_hole(std::span<const Mapping> mappings, int memory_fd, size_t bytes);

// Address ranges that hold only code of controllers that died: a thread there is healing.
std::vector<AddressRange> controller_code(std::span<const Mapping> mappings, int memory_fd);

}  // namespace stasis
