#include "checkpoint/tree_memory.h"

#include <fcntl.h>

#include <algorithm>
#include <functional>
#include <string>

#include "arch/arch.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "memory/page_scan.h"
#include "memory/write_rate.h"

namespace stasis {

namespace {

// What a live dump may keep in memory instead of writing it while the tasks stand still.
constexpr uint64_t kLiveBudgetBytes = 64 << 20;

bool runs_on(const DumpOptions& options) {
  return options.final_state == DumpOptions::FinalState::running;
}

// What either way costs a program, in seconds: the fork, and the copies that the kernel makes while the fork is read;
// or standing still while all is copied. Measured on Linux 6.18, see docs/decisions/0022.
bool fork_costs_less(uint64_t bytes, double written_a_second) {
  constexpr double kForkBytesPerSecond = 45e9, kDrainBytesPerSecond = 1.5e9, kCopyBytesPerSecond = 5e9;
  constexpr double kFaultSeconds = 12e-6, kPage = 4096;
  const double size = static_cast<double>(bytes);
  const double drain = size / kDrainBytesPerSecond;
  const double fork =
      size / kForkBytesPerSecond + std::min(1.0, written_a_second * drain) * size / kPage * kFaultSeconds;
  return fork < size / kCopyBytesPerSecond;
}

}  // namespace

TreeMemory::TreeMemory(const DumpOptions& options, ImageStore& store)
    : options_(options), store_(store), snapshot_(runs_on(options) ? kLiveBudgetBytes : 0) {}

void TreeMemory::prepare(std::span<const pid_t> pids, uint64_t private_bytes) {
  if (!runs_on(options_)) return;
  forked_ = options_.snapshot == MemorySnapshot::fork;
  if (options_.snapshot == MemorySnapshot::automatic && private_bytes > kLiveBudgetBytes) {
    const double rate = written_a_second(pids);
    forked_ = fork_costs_less(private_bytes, rate);
    log_info("{} MiB of memory, {:.2f} of it written in a second: {}", private_bytes >> 20, rate,
             forked_ ? "saved from a fork" : "copied while the tasks stand still");
  }
  if (!forked_) snapshot_.expect(private_bytes);
}

void TreeMemory::start(Processes processes, bool related, Workers& workers) {
  processes_ = processes;
  related_ = related;
  copies_.resize(processes_.size());
  for (const auto& p : processes_) {
    std::vector<uint64_t>& pointers = stack_pointers_.emplace_back();
    for (const FrozenThread& t : p->threads) pointers.push_back(arch::stack_pointer(t.tracee->own_registers()));
  }
  if (!forked_) start_copies(workers);
}

// The pages of a task are copied by the workers while the tracing thread borrows it: the calls that it makes meanwhile
// touch only its batch area.
void TreeMemory::start_copies(Workers& workers) {
  std::vector<std::function<void()>> jobs;
  for (size_t i = 0; i < processes_.size(); ++i)
    jobs.emplace_back([this, i, memory_fd = processes_[i]->memory_fd()] {
      const FrozenProcess& p = *processes_[i];
      const Fd pagemap = p.proc.open("pagemap", O_RDONLY);
      copy(i, {.pid = p.task(), .memory_fd = memory_fd, .pagemap_fd = pagemap.get(), .has_relatives = related_});
    });
  workers.start(std::move(jobs));
}

// `from`: whose memory is read.
void TreeMemory::copy(size_t i, TaskPages from) {
  FrozenProcess& p = *processes_[i];
  const PageScan scan = scan_pages(from.pagemap_fd, p.vmas);
  p.guards = scan.guards;
  from.name = p.describe();
  from.vmas = p.vmas;
  from.scan = &scan;
  from.stack_pointers = stack_pointers_[i];
  from.vdso = p.vdso_image;
  copies_[i] = snapshot_.copy(from);
}

void TreeMemory::fork(Workers& workers, StopWaiter& waiter) {
  forked_ = forks_.make(processes_, waiter);
  if (!forked_) start_copies(workers);
}

void TreeMemory::finish(std::span<const MemoryObject> objects, Workers& workers) {
  workers.finish();
  objects_ = objects;
  for (const MemoryObject& o : objects) copies_.push_back(snapshot_.copy_object(o.fd.get(), o.name));
  writers_.resize(copies_.size());
  if (std::all_of(copies_.begin(), copies_.end(), [](const PageCopy& c) { return c.kept(); })) return;
  for (size_t i = forked_ ? processes_.size() : 0; i < copies_.size(); ++i) store(i);
}

void TreeMemory::drain() {
  for (size_t i = 0; i < processes_.size(); ++i) {
    // It shares all of its pages with its parent.
    copy(i, {.pid = forks_.pid(i),
             .memory_fd = forks_.memory_fd(i),
             .pagemap_fd = forks_.pagemap_fd(i),
             .has_relatives = true,
             .stays = true});
    store(i);
  }
  forks_.end();
}

void TreeMemory::store(size_t i) {
  if (writers_[i]) return;
  const bool task = i < processes_.size();
  writers_[i] = std::make_unique<PagemapWriter>(
      store_, task ? ImageKind::PAGEMAP : ImageKind::SHMEM_PAGEMAP,
      task ? static_cast<uint64_t>(processes_[i]->pid()) : objects_[i - processes_.size()].id);
  snapshot_.store(copies_[i], *writers_[i]);
  check_interrupted();
}

void TreeMemory::store() {
  for (size_t i = 0; i < copies_.size(); ++i) store(i);
  snapshot_.finish();
  for (auto& w : writers_) w->close();
}

}  // namespace stasis
