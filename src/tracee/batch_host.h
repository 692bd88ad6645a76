// A process whose threads can run batches: it has a batch area, threads have slots in it.
#pragma once

#include <chrono>
#include <string>

#include "tracee/area.h"
#include "tracee/batch.h"
#include "tracee/tracee.h"

namespace stasis {

class BatchHost {
 public:
  BatchHost() = default;
  BatchHost(pid_t pid, std::string name) : pid_(pid), memory_of_(pid), name_(std::move(name)) {}

  pid_t pid() const { return pid_; }
  // A thread that lives, if the leader has ended: the memory is reached by it.
  void set_memory_of(pid_t tid) { memory_of_ = tid; }
  const BatchArea& area() const { return area_; }
  void set_area(const BatchArea& area) { area_ = area; }
  ReportSignal report() const { return report_; }
  void set_report(ReportSignal report) { report_ = report; }
  // "pid 42 (redis-server)"
  std::string describe() const;

  // Sends a stopped thread into the batch. The slot belongs to it until give_back(), or until the thread is sent
  // elsewhere. Throws INTERNAL if the batch is larger than the slot.
  void start(Tracee& thread, unsigned slot, const SyscallBatch& batch);
  // Waits for it and takes the results. Throws BATCH_CALL_FAILED naming call, arguments and errno when a call that must
  // succeed failed.
  void finish(Tracee& thread, unsigned slot, SyscallBatch& batch, StopWaiter& waiter);
  // Interrupts a started batch. True if it has run to its end, and its results are taken (failures are the caller's);
  // false if the thread stands somewhere in it.
  bool interrupt(Tracee& thread, unsigned slot, SyscallBatch& batch, StopWaiter& waiter);
  void run(Tracee& thread, unsigned slot, SyscallBatch& batch, StopWaiter& waiter);

  // How long a batch may take before the task counts as lost.
  static constexpr std::chrono::seconds kPatience{20};

 private:
  void collect(unsigned slot, SyscallBatch& batch);
  pid_t pid_ = 0, memory_of_ = 0;
  std::string name_;
  BatchArea area_;
  ReportSignal report_;
  std::vector<std::byte> scratch_;
};

// Throws BATCH_CALL_FAILED if the batch was ended by a failing call.
void throw_if_failed(const SyscallBatch& batch, const std::string& who);

}  // namespace stasis
