#include "checkpoint/memory_fork.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <optional>

#include "base/error.h"
#include "base/log.h"
#include "kernel/process.h"
#include "tracee/borrowed.h"

namespace stasis {

namespace {

// How long a process may take to stand still so that it can wait for its child.
constexpr std::chrono::seconds kPatience{2};
// Calls for areas that a fork would leave out, as many as there is room for beside the rest of the batch.
constexpr size_t kMostAdvices = 32;

struct ForkBatch {
  SyscallBatch batch;
  SyscallBatch::Call fork;
};

// Why a process must not be forked; nothing if it may.
std::optional<std::string> obstacle(const FrozenProcess& p) {
  size_t advised = 0;
  for (const Vma& v : p.vmas) {
    // The parent of a fork takes a page away from its child when the pool is empty (hugetlbfs_reserve in the kernel's
    // documentation).
    if (v.is_private() && v.is_huge()) return "it has private memory in huge pages of a pool";
    const Mapping& m = p.mappings[v.mapping];
    if (v.stores_pages() && (m.has(VmFlag::dc) || m.has(VmFlag::wf)) && ++advised > kMostAdvices)
      return "a fork would leave many of its areas out";
  }
  return std::nullopt;
}

// Areas that a fork leaves out or empties take part in this one. The undo table gives the advice back if this program
// dies in between.
void make_fork_batch(const FrozenProcess& p, ForkBatch& out) {
  const auto for_advised = [&](auto&& act) {
    for (const Vma& v : p.vmas) {
      if (!v.stores_pages()) continue;
      const Mapping& m = p.mappings[v.mapping];
      if (m.has(VmFlag::dc)) act(v, MADV_DOFORK, MADV_DONTFORK);
      if (m.has(VmFlag::wf)) act(v, MADV_KEEPONFORK, MADV_WIPEONFORK);
    }
  };
  for_advised([&](const Vma& v, int take_part, int own) {
    out.batch.must(SYS_madvise, {v.start, v.size_bytes(), take_part});
    out.batch.undo(SYS_madvise, {v.start, v.size_bytes(), own});
  });
  out.fork = out.batch.call(SYS_clone, {CLONE_PTRACE | CLONE_FILES, 0, 0, 0, 0}, arch::kExitIfChild);
  for_advised([&](const Vma& v, int, int own) { out.batch.must(SYS_madvise, {v.start, v.size_bytes(), own}); });
}

// Nothing happens if it is no child of the process any more.
SyscallBatch waiting_for(pid_t child) {
  SyscallBatch batch;
  batch.call(SYS_wait4, {child, 0, __WALL | WNOHANG, 0});
  return batch;
}

}  // namespace

MemoryForks::~MemoryForks() {
  end();
}

bool MemoryForks::make(std::span<const std::unique_ptr<FrozenProcess>> processes, StopWaiter& waiter) {
  for (const auto& p : processes) {
    if (const auto why = obstacle(*p)) {
      log_info("{}: memory is copied while it stands still: {}", p->describe(), *why);
      return false;
    }
  }
  std::vector<ForkBatch> batches(processes.size());
  for (size_t i = 0; i < processes.size(); ++i) {
    make_fork_batch(*processes[i], batches[i]);
    processes[i]->start_in_leader(batches[i].batch);
  }
  forks_.reserve(processes.size());
  std::string failure;
  for (size_t i = 0; i < processes.size(); ++i) {
    processes[i]->finish_in_leader(batches[i].batch, waiter);
    const int64_t result = batches[i].batch.result(batches[i].fork);
    if (result > 0)
      adopt(*processes[i], static_cast<pid_t>(result), waiter);
    else if (failure.empty())
      failure = fmt::format("{}: {}", processes[i]->describe(), errno_text(static_cast<int>(-result)));
  }
  if (failure.empty()) return true;
  log_info("{}: it cannot be forked, memory is copied while it stands still", failure);
  for (Fork& fork : forks_) {
    const pid_t child = fork.child.tid();
    kill(fork);
    for (const auto& p : processes) {
      if (p->pid() != fork.parent) continue;
      SyscallBatch batch = waiting_for(child);
      p->start_in_leader(batch);
      p->finish_in_leader(batch, waiter);
    }
  }
  forks_.clear();
  return false;
}

void MemoryForks::adopt(FrozenProcess& process, pid_t child, StopWaiter& waiter) {
  forks_.push_back({.parent = process.pid(),
                    .thread = process.task(),
                    .filtered = process.leader().status.seccomp != 0,
                    .name = process.leader().stat.comm,
                    .child = Tracee::adopt(child, child),
                    .memory = {},
                    .pagemap = {}});
  Fork& fork = forks_.back();
  if (!fork.child.await_stop(waiter, Clock::now() + BatchHost::kPatience))
    throw Error(Reason::TRACEE_LOST, "the copy of its memory does not come to rest").object(process.describe());
  const ProcDir proc(child);
  // Its pages count for the group of the process: if there are too many, this one is to go.
  proc.write("oom_score_adj", "1000");
  fork.memory = proc.open("mem", O_RDONLY);
  fork.pagemap = proc.open("pagemap", O_RDONLY);
}

void MemoryForks::kill(Fork& fork) noexcept {
  const pid_t child = fork.child.tid();
  fork.memory.reset();
  fork.pagemap.reset();
  fork.child.forget();
  if (::kill(child, SIGKILL) != 0) return;
  int status;
  while (::waitpid(child, &status, __WALL) == child && WIFSTOPPED(status)) {
  }
}

void MemoryForks::end() noexcept {
  std::vector<pid_t> children;
  for (Fork& fork : forks_) {
    children.push_back(fork.child.tid());
    kill(fork);
  }
  for (size_t i = 0; i < forks_.size(); ++i) reap(forks_[i], children[i]);
  forks_.clear();
}

void MemoryForks::reap(const Fork& fork, pid_t child) noexcept {
  try {
    StopWaiter waiter;
    Tracee thread = Tracee::seize(fork.parent, fork.thread);
    thread.interrupt();
    if (!thread.await_stop(waiter, Clock::now() + kPatience, false))
      throw Error(Reason::TRACEE_LOST, "it does not come to rest").object(fork.name);
    if (fork.filtered) thread.suspend_seccomp();
    thread.save_own_state();
    ProcDir proc(fork.thread);
    const std::vector<Mapping> mappings = parse_maps(proc.read("maps"));
    Borrowed borrowed(fork.parent, fork.name, thread, proc.open("mem", O_RDWR));
    // Stepped from call to call: no signal is needed, whatever the program does with its signals by now.
    borrowed.start_open(mappings, {.slots = 1}, ReportSignal{});
    borrowed.finish_open(waiter);
    SyscallBatch batch = waiting_for(child);
    borrowed.host().run(thread, 0, batch, waiter);
    borrowed.start_close();
    borrowed.finish_close(waiter);
    thread.detach();
  } catch (const Error& e) {
    if (e.reason() == Reason::NO_SUCH_TASK || e.reason() == Reason::TASK_VANISHED) return;
    log_warning("{} keeps the zombie {} until it ends: {}", fork.name, child, e.what());
  }
}

}  // namespace stasis
