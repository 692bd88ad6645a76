// A process being restored: it starts as a tiny stub and does what it is told by batches, until it is released into its
// own code. All puppets die with the controller (PTRACE_O_EXITKILL) until release_all() lets all of them go.
#pragma once

#include <sched.h>

#include <array>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "base/fd.h"
#include "tracee/batch_host.h"
#include "tracee/borrowed.h"

namespace stasis {

// Socket pairs for handing descriptors to puppets (SCM_RIGHTS): the controller keeps one end of each, all puppets of a
// tree inherit the others, at the same numbers. A channel carries one message at a time, so that as many puppets as
// there are channels can receive at once.
class FdChannels {
 public:
  static constexpr int kMostChannels = 16;
  // Most descriptors in one message (SCM_MAX_FD of the kernel).
  static constexpr size_t kMost = 253;

  // `first_number`: the descriptor number of channel 0 in every puppet; the others follow. `count`: up to
  // kMostChannels.
  FdChannels(int first_number, int count);
  int count() const { return static_cast<int>(controller_ends_.size()); }
  int first_number() const { return first_number_; }
  int number(int channel) const { return first_number_ + channel; }
  int end_number() const { return first_number_ + count(); }
  int puppet_end(int channel) const { return puppet_ends_[static_cast<size_t>(channel)].get(); }
  void close_puppet_ends();

  // Sends up to kMost descriptors as one message.
  void send(int channel, std::span<const int> fds) const;
  // Adds the call that receives a message of `count` descriptors. In an otherwise empty table they get the lowest free
  // numbers in order.
  void receive(SyscallBatch& batch, int channel, size_t count) const;

 private:
  std::vector<Fd> controller_ends_, puppet_ends_;
  int first_number_;
};

// What a puppet executes: the kernel decides at exec about the address space and the layout of new mappings.
struct StubKind {
  bool compat = false;  // of the narrower width (arch::is_compat())
  uint64_t personality = 0;
};

struct StubOptions {
  pid_t pid = 0;  // the pid it must have; 0: any
  StubKind kind;
  const FdChannels* channels = nullptr;
  bool sibling = false;  // a child of this program's parent
};

class Puppet {
 public:
  struct Shape {
    unsigned slots = 1;
    size_t first_slot_bytes = 0;
    size_t other_slot_bytes = 0;
    uint64_t area_address = 0;  // free in the stub and in every layout of the tree
  };

  // Starts the root of a tree: a stub with an empty address space but for the batch area.
  // Throws PID_TAKEN, NO_PRIVILEGE, RESTORE_CALL_FAILED.
  static std::unique_ptr<Puppet> start_root(const StubOptions& options, const Shape& shape, StopWaiter& waiter);
  // A child that a batch of `parent` has just cloned with CLONE_PTRACE; it has a copy of the parent's memory.
  static std::unique_ptr<Puppet> adopt_child(const Puppet& parent, pid_t pid, StopWaiter& waiter);
  // Threads of these ids, cloned by one that is there and in its image: in batches that keep `room` bytes of the first
  // slot free. `tables`: those that they share with it, of CLONE_FILES and CLONE_FS.
  static constexpr uint64_t kBothTables = CLONE_FILES | CLONE_FS;
  void clone_threads(Tracee& by, std::span<const pid_t> tids, size_t room, StopWaiter& waiter,
                     uint64_t tables = kBothTables);
  // threads() in the order of these ids, which are all there are.
  void sort_threads(std::span<const pid_t> tids);
  // A child becomes a stub of another kind, with an empty address space but for the batch area. It has nothing yet but
  // the channels; one of them is used.
  void execute_stub(const StubKind& kind, const FdChannels& channels, const Shape& shape, StopWaiter& waiter);
  // A thread that was cloned with CLONE_THREAD | CLONE_PTRACE.
  Tracee& adopt_thread(pid_t tid, StopWaiter& waiter);

  // Kills the process unless it was released.
  ~Puppet();
  Puppet(const Puppet&) = delete;
  Puppet& operator=(const Puppet&) = delete;

  pid_t pid() const { return pid_; }
  BatchHost& host() { return host_; }
  std::vector<Tracee>& threads() { return threads_; }
  Tracee& thread(pid_t tid);
  // The leader; when that has ended, the first thread that lives.
  Tracee& leader() { return threads_.front(); }
  // /proc/PID/mem, opened when it is asked for.
  int memory_fd();

  // Runs a batch in the leader.
  void run(SyscallBatch& batch, StopWaiter& waiter);
  void start(SyscallBatch& batch);
  void finish(SyscallBatch& batch, StopWaiter& waiter);

  // The last call: unmaps the area, made by the leader, which then stands at the call's exit with its own registers. In
  // three steps, each of which waits for what the one before has started, so that many puppets are driven at once.
  void start_unmap();
  void enter_unmap(StopWaiter& waiter);
  void finish_unmap(StopWaiter& waiter);

  // Makes it a stopped process, by `signal` or, where that stops nothing here, by SIGSTOP: before there are threads.
  void stop_by(int signal, StopWaiter& waiter);
  // Ends the leader alone, with a status as of exit(2) and these signals blocked; there are other threads. It is not
  // attached any more then.
  void end_leader(int status, uint64_t blocked, StopWaiter& waiter);
  // Ends with a wait(2) status (without the core dump bit) and stays a zombie of its parent.
  void die(int wait_status, StopWaiter& waiter);

  // The signal that is to stop it as soon as it is released; 0: it runs.
  void set_stop_signal(int signal) { stop_signal_ = signal; }

  // The clone3 call of a new child or thread; the arguments live in the batch's data. `shared`: CLONE_FILES, CLONE_FS.
  // `exit_signal` tells the parent of the child's end. Without one (0) nothing does, and it waits with __WALL.
  static SyscallBatch::Call clone_process(SyscallBatch& batch, pid_t pid, int exit_signal, uint64_t shared = 0);
  static SyscallBatch::Call clone_thread(SyscallBatch& batch, pid_t tid, uint64_t tables = kBothTables);

 private:
  Puppet() = default;
  void borrow_stub(const StubKind& kind, const Shape& shape, StopWaiter& waiter);

  pid_t pid_ = 0;
  BatchHost host_;
  std::vector<Tracee> threads_;
  std::once_flag memory_opened_;
  Fd memory_;
  int stop_signal_ = 0;

  friend void release_all(std::span<const std::unique_ptr<Puppet>> puppets);
};

// Lets every puppet go: EXITKILL is cleared on all threads of all, then all are detached, so that a controller that
// dies in between leaves the whole tree or nothing (O-68).
void release_all(std::span<const std::unique_ptr<Puppet>> puppets);

}  // namespace stasis
