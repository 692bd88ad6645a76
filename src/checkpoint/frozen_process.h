// What a dump knows of one stopped process.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/address_range.h"
#include "checkpoint/area_policies.h"
#include "checkpoint/kernel_ids.h"
#include "checkpoint/wait_begin.h"
#include "kernel/mapping_reader.h"
#include "kernel/proc.h"
#include "memory/vma.h"
#include "objects/files/file_table.h"
#include "objects/task/seccomp.h"
#include "objects/task_object.h"
#include "proto/timens.pb.h"
#include "tracee/borrowed.h"
#include "tracee/seize_tree.h"

namespace stasis {

// Before the freeze: looks up what will be read of a process while it is frozen. Tells how many mappings it has,
// kManyMappings if more than some hundred, and whether rings of io_uring are among them. Below that number in all,
// reading smaps costs less than getting a MappingReader ready.
inline constexpr size_t kManyMappings = 1500;
// For smaps the kernel also counts pages: 20 ms for a GiB.
inline constexpr uint64_t kMuchMemoryBytes = uint64_t{16} << 20;
struct WarmProc {
  size_t mappings = 0;
  bool has_ring = false;
};
WarmProc warm_proc(pid_t pid) noexcept;

// A descriptor table or an fs struct that is not the leader's.
struct OwnTables {
  KernelIds ids;  // files and fs
  std::vector<DescriptorNumber> descriptors;
  Fd pidfd;
  uint32_t cwd_file_id = 0, root_file_id = 0;
};

struct FrozenThread {
  explicit FrozenThread(Tracee& t) : tracee(&t), states(Scope::thread) {}

  Tracee* tracee;
  ProcStat stat;
  ProcStatus status;
  std::optional<uint64_t> waited_ns;  // LookView
  ObjectStates states;
  std::unique_ptr<OwnTables> own_tables;  // null: it shares both with the leader, as nearly all do
};

struct FrozenProcess {
  FrozenProcess(SeizedProcess& s, const WaitBegins& waits)
      : seized(&s), proc(s.threads.front().tid()), states(Scope::process), waits_(waits) {}

  pid_t pid() const { return seized->pid; }
  // Of the thread by which everything that threads share is looked at: a leader that has ended shares nothing any more.
  pid_t task() const { return seized->threads.front().tid(); }
  bool leader_has_ended() const { return seized->zombie; }
  // The leader, or the first thread that lives.
  FrozenThread& leader() { return threads.front(); }
  std::string describe() const;

  // Looking, in three parts. First what can be read by any thread of this program, as jobs of their own (they outlive
  // nothing but this object), while the tracing thread reads registers. Then, when both are done, the rest: threads
  // that are healing from a controller that died are let finish first; throws UNSUPPORTED_STATE and the like for what
  // cannot be saved.
  // `mapping_reader` may be null.
  void add_jobs(std::vector<std::function<void()>>& jobs, bool few_processes, MappingReader* mapping_reader);
  void read_registers();
  void look(const DumpOptions& options, SeccompFilters& filters, StopWaiter& waiter);

  // Threads with tables of their own, once these have numbers: whether a restore can make them.
  void check_thread_tables() const;

  // CLOCK_MONOTONIC of the image: known before the leader's batch.
  void set_clock(const pb::timespec& monotonic);

  // Borrowing in steps, so that all processes of a tree are driven at once.
  void start_borrow();
  void finish_borrow(StopWaiter& waiter);
  void start_leader_batch(const DumpOptions& options);
  void finish_leader_batch(const DumpOptions& options, StopWaiter& waiter);
  void run_thread_batches(const DumpOptions& options, StopWaiter& waiter);
  // A further batch in the leader, after the thread batches.
  void start_in_leader(const SyscallBatch& batch) { borrowed_->host().start(*leader().tracee, 0, batch); }
  void finish_in_leader(SyscallBatch& batch, StopWaiter& waiter) {
    borrowed_->host().finish(*leader().tracee, 0, batch, waiter);
  }
  void start_give_back();
  void finish_give_back(StopWaiter& waiter);
  // It is about to be killed: nothing is put back.
  void abandon() { borrowed_->abandon(); }
  // /proc/PID/mem, from the look on.
  int memory_fd() const { return borrowed_ ? borrowed_->memory().get() : memory_.get(); }

  SeizedProcess* seized;
  ProcDir proc;
  std::vector<FrozenThread> threads;  // the living ones, the leader first
  ObjectStates states;

  std::vector<Mapping> mappings;
  std::vector<Vma> vmas;
  std::vector<std::byte> vdso_image;
  bool compat = false;  // as in LookView
  std::vector<AuxEntry> auxv;
  uint64_t brk = 0;
  std::vector<DescriptorNumber> descriptors;
  Fd pidfd;
  NamespaceInodes namespaces{};
  KernelIds ids;
  std::vector<AddressRange> guards;
  AreaPolicies policies;
  bool has_ring_workers = false;  // threads of the kernel, which are none of `threads`
  uint32_t exe_file_id = 0, cwd_file_id = 0, root_file_id = 0;

 private:
  void read_mappings(ProcDir& dir);
  void read_code();
  void read_threads(ProcDir& dir, size_t first, size_t end);
  void let_heal(StopWaiter& waiter);
  void look_at_ended_leader();
  void look_at_tables(FrozenThread& thread);
  void ask_on(ObjectStates& of, FrozenThread& thread, unsigned slot, const DumpOptions& options, StopWaiter& waiter);
  bool runs_compat_program();
  void look_at_filters(FrozenThread& thread, SeccompFilters& filters);
  ReportSignal report_signal() const;
  LookView view(FrozenThread& thread, const DumpOptions& options);

  const WaitBegins& waits_;
  std::optional<uint64_t> monotonic_ns_;
  Fd memory_;  // /proc/PID/mem, until it is borrowed
  MappingReader* mapping_reader_ = nullptr;
  std::vector<AddressRange> controllers_;
  uint64_t hole_ = 0;
  std::unique_ptr<Borrowed> borrowed_;
  SyscallBatch leader_batch_;
  SyscallBatch::Call brk_call_, auxv_call_;
  BatchData auxv_data_;
  std::vector<SyscallBatch::Call> descriptor_calls_;
  unsigned slots_ = 1;
};

}  // namespace stasis
