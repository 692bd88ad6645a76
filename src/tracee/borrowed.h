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
    uint64_t hole = 0;  // where its bootstrap goes, by find_bootstrap_hole() of bootstrap_bytes() bytes; 0: looked for
  };

  // `leader` is stopped with its own state saved and outlives this object. `mappings`: all of the process, ascending.
  // `memory`: /proc/PID/mem open for reading and writing.
  Borrowed(pid_t pid, std::string name, Tracee& leader, Fd memory);
  Borrowed(Borrowed&&) noexcept = default;
  // Removes the area if it is still there; failures are logged.
  ~Borrowed();

  // Makes the area. Throws NO_ROOM_FOR_BATCH, BATCH_CALL_FAILED.
  void start_open(std::span<const Mapping> mappings, const Shape& shape, ReportSignal report);
  // `compat`: the leader runs code of the narrower width.
  static size_t bootstrap_bytes(bool compat);
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

// A task's memory as it is read in search of code: through /proc/PID/mem, or from a copy of one piece (the vdso).
class MemoryView {
 public:
  MemoryView(int memory_fd) : fd_(memory_fd) {}
  // `copy` is that of the bytes at `address`; it outlives the view.
  MemoryView(int memory_fd, uint64_t address, std::span<const std::byte> copy)
      : fd_(memory_fd), address_(address), copy_(copy) {}
  // False if not all can be read.
  bool read(uint64_t address, void* out, size_t bytes) const;

 private:
  int fd_;
  uint64_t address_ = 0;
  std::span<const std::byte> copy_;
};

// A place for `bytes` of bootstrap code: free bytes behind the end of the vdso image, else in the spare room of an area
// that a dead controller left. 0 if there is none.
uint64_t find_bootstrap_hole(std::span<const Mapping> mappings, const MemoryView& memory, size_t bytes);

// Address ranges that hold only code of controllers that died: a thread there is healing.
std::vector<AddressRange> controller_code(std::span<const Mapping> mappings, const MemoryView& memory);

}  // namespace stasis
