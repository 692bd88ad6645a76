#include "restore/settle.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <map>
#include <optional>
#include <set>

#include "base/error.h"
#include "objects/task/credentials.h"
#include "objects/task/pending_signals.h"
#include "objects/task/registers.h"
#include "objects/task/rseq.h"
#include "objects/task/signal_mask.h"
#include "restore/sleep.h"

namespace stasis {

namespace {

// More than the calls for one descriptor and those behind the last one take.
constexpr size_t kNextCallsBytes = 1024;

SettleView view_of(const PlannedProcess& p, const PlannedThread& t, const RestoreOptions& options,
                   const std::optional<RestoredClocks>& clocks = {}) {
  SettleView view{options, p.pid, t.tid, p.pid, t.tid, p.describe()};
  if (!clocks) return view;
  view.monotonic_ns = clocks->monotonic_ns;
  view.boottime_ns = clocks->boottime_ns;
  view.clocks_went_on_ns = clocks->went_on_ns();
  return view;
}

// A signal that the images do not hold as pending: reporting by it takes nothing out of a queue. The handler of the
// task does not matter, the controller never lets the signal through.
ReportSignal free_report_signal(const PlannedProcess& p) {
  uint64_t pending = pending_set(p.states.get<ProcessPendingSignals>());
  for (const PlannedThread& t : p.threads) pending |= pending_set(t.states.get<ThreadPendingSignals>());
  for (int signal : {SIGURG, SIGWINCH, SIGCHLD})
    if ((pending >> (signal - 1) & 1) == 0) return {signal};
  return {0};
}

// Runs one batch in every thread but the leader, as many at a time as there are slots. `make` fills a batch.
template <class Make>
void run_in_threads(Puppet& puppet, const PlannedProcess& p, StopWaiter& waiter, Make make) {
  BatchHost& host = puppet.host();
  const size_t slots = host.area().slots() - 1;
  std::vector<SyscallBatch> batches(slots);
  for (size_t first = 1; first < p.threads.size(); first += slots) {
    const size_t count = std::min(slots, p.threads.size() - first);
    std::vector<size_t> started;
    for (size_t i = 0; i < count; ++i) {
      SyscallBatch& batch = batches[i];
      batch.clear();
      make(p.threads[first + i], batch);
      if (batch.empty()) continue;
      Tracee& thread = puppet.threads()[first + i];
      if (batch.size() > host.area().batch_capacity(static_cast<unsigned>(i) + 1)) {
        // A long queue of signals: the leader is at rest, its slot is large.
        host.run(thread, 0, batch, waiter);
        continue;
      }
      host.start(thread, static_cast<unsigned>(i) + 1, batch);
      started.push_back(i);
    }
    for (size_t i : started) host.finish(puppet.threads()[first + i], static_cast<unsigned>(i) + 1, batches[i], waiter);
  }
}

// Fills a batch for each process and runs them all at once, in the leaders. Empty ones are not run.
template <class Make>
void run_in_leaders(PuppetTree& tree, Processes processes, StopWaiter& waiter, Make make) {
  std::vector<std::pair<Puppet*, SyscallBatch>> batches;
  batches.reserve(processes.size());
  for (const PlannedProcess* p : processes) {
    SyscallBatch batch;
    make(*p, batch);
    if (batch.empty()) continue;
    batches.emplace_back(&tree.puppet(*p), std::move(batch));
    batches.back().first->start(batches.back().second);
  }
  for (auto& [puppet, batch] : batches) puppet->finish(batch, waiter);
}

// Working and root directories: most processes of a tree have the same.
class Directories {
 public:
  explicit Directories(const RestoredFiles& files) : files_(files) {}
  int fd(uint32_t id) {
    Fd& fd = open_[id];
    if (!fd) fd = files_.open_path(id, O_PATH | O_DIRECTORY);
    return fd.get();
  }

 private:
  const RestoredFiles& files_;
  std::map<uint32_t, Fd> open_;
};

// What a process takes over: each table once, by the first process that has it.
struct Share {
  bool descriptors = true;
  bool directories = true;
};

// Who fills a table: the leader of the first process that has it, or a thread.
struct Taker {
  const PlannedProcess* process;
  const PlannedThread* thread;
  uint32_t files_id;
  const pb::fs_entry* fs;
  Share share;
};

Tracee& thread_of(PuppetTree& tree, const Taker& t) {
  Puppet& puppet = tree.puppet(*t.process);
  return t.thread == &t.process->threads.front() ? puppet.leader() : puppet.thread(t.thread->tid);
}

// The calls that give one table its descriptors, through one channel. Long tables take several batches; what is left at
// the end has not been run.
void take_over_files(PuppetTree& tree, const Taker& taker, int channel, const RestoredFiles& files,
                     Directories& directories, SyscallBatch& batch, StopWaiter& waiter) {
  const FdChannels& channels = tree.channels();
  const Share share = taker.share;
  std::vector<DescriptorSlot> table;  // ascending by number
  if (share.descriptors) table = files.given_descriptors(taker.files_id);

  // Received descriptors get 0, 1, 2 ... in the order of their final numbers, so that none has to be moved away before
  // another: going down, the final number of each is free or its own.
  std::vector<int> sent;
  for (const DescriptorSlot& slot : table) sent.push_back(files.fd_of(slot.id));
  const int count = static_cast<int>(sent.size());
  const bool changes_root = share.directories && files.path_file(taker.fs->root_id()).path != "/";
  if (share.directories) sent.push_back(directories.fd(taker.fs->cwd_id()));
  if (changes_root) sent.push_back(directories.fd(taker.fs->root_id()));

  const auto run = [&] {
    tree.puppet(*taker.process).host().run(thread_of(tree, taker), 0, batch, waiter);
    batch.clear();
  };
  for (size_t first = 0; first < sent.size(); first += FdChannels::kMost) {
    const auto part = std::span(sent).subspan(first, std::min(FdChannels::kMost, sent.size() - first));
    channels.send(channel, part);
    channels.receive(batch, channel, part.size());
    if (first + FdChannels::kMost < sent.size()) run();
  }
  if (changes_root) {
    batch.must(SYS_fchdir, {count + 1});
    const BatchData here = batch.text(".");
    batch.must(SYS_chroot, {here});
    batch.must(SYS_close, {count + 1});
  }
  if (share.directories) {
    batch.must(SYS_fchdir, {count});
    batch.must(SYS_close, {count});
    batch.must(SYS_umask, {taker.fs->umask()});
  }
  for (int i = count; i-- > 0;) {
    const DescriptorSlot& slot = table[static_cast<size_t>(i)];
    if (slot.number != i) {
      batch.must(SYS_dup3, {i, slot.number, slot.cloexec ? O_CLOEXEC : 0});
      batch.must(SYS_close, {i});
    } else if (slot.cloexec) {
      batch.must(SYS_fcntl, {i, F_SETFD, FD_CLOEXEC});
    }
    if (batch.size() + kNextCallsBytes > kLeaderSlotBytes) run();
  }
  if (share.descriptors) batch.must(SYS_close_range, {channels.first_number(), channels.end_number() - 1, 0});
}

void load_final_state(Puppet& puppet, const PlannedProcess& p, const std::optional<RestoredClocks>& clocks,
                      StopWaiter& waiter) {
  const unsigned slots = puppet.host().area().slots();
  uint64_t shared = pending_set(p.states.get<ProcessPendingSignals>());
  for (size_t i = 0; i < p.threads.size(); ++i) {
    Tracee& t = puppet.threads()[i];
    const ObjectStates& states = p.threads[i].states;
    CpuRegisters::State registers = states.get<CpuRegisters>();
    const uint64_t blocked = states.get<SignalMask>().blocked;
    const uint64_t own = pending_set(states.get<ThreadPendingSignals>());
    if (const auto* handler = first_handler(own, shared, blocked, p.states.get<SignalActions>()))
      interrupt_by_handler(registers, (handler->flags & SA_RESTART) != 0);
    shared &= blocked;  // the first thread that is released takes the rest
    if (auto sleep = pending_sleep(registers)) {
      if (clocks) sleep->clocks_went_on_ns = clocks->went_on_ns();
      // The slot is free again as soon as the thread sleeps: the kernel has copied what it needs.
      restart_sleep(puppet, t, i == 0 ? 0 : 1 + static_cast<unsigned>(i - 1) % (slots - 1), *sleep, registers.general,
                    waiter);
    }
    load_registers(registers, t);
    t.set_own_signal_mask(blocked);
  }
}

// Before the credentials of anybody: a lease on a file of somebody else needs a capability.
void take_file_locks(PuppetTree& tree, Processes processes, const RestoredFiles& files, StopWaiter& waiter) {
  const auto take = [&](Puppet& puppet, Tracee& thread, pid_t task) {
    SyscallBatch batch;
    for (const RestoredFiles::Lock& lock : files.locks_of(task)) {
      files.take(lock, batch);
      if (batch.size() + kNextCallsBytes <= kLeaderSlotBytes) continue;
      puppet.host().run(thread, 0, batch, waiter);
      batch.clear();
    }
    if (!batch.empty()) puppet.host().run(thread, 0, batch, waiter);
  };
  for (const PlannedProcess* p : processes) {
    Puppet& puppet = tree.puppet(*p);
    take(puppet, puppet.leader(), p->pid);
    for (const PlannedThread& t : p->threads)
      if (t.tid != p->pid && !files.locks_of(t.tid).empty()) take(puppet, puppet.thread(t.tid), t.tid);
  }
  files.finish_leases();
}

}  // namespace

void hand_over_files(PuppetTree& tree, Processes processes, const RestoredFiles& files, StopWaiter& waiter) {
  Directories directories(files);
  std::vector<Taker> takers;
  for (const PlannedProcess* p : processes) takers.push_back({p, &p->threads.front(), p->ids.files_id(), &p->fs, {}});
  const size_t leaders = takers.size();
  for (const PlannedProcess* p : processes)
    for (const PlannedThread& t : p->threads)
      if (t.tables) takers.push_back({p, &t, t.tables->files, t.fs.has_cwd_id() ? &t.fs : nullptr, {}});
  std::set<uint32_t> tables, fs_structs;
  std::vector<const Taker*> parallel;
  const auto take = [&](const Taker& t) {
    SyscallBatch batch;
    take_over_files(tree, t, 0, files, directories, batch, waiter);
    tree.puppet(*t.process).host().run(thread_of(tree, t), 0, batch, waiter);
  };
  for (Taker& t : takers) {
    const uint32_t fs_id = t.thread->tables ? t.thread->tables->fs : t.process->ids.fs_id();
    t.share = {tables.insert(t.files_id).second, fs_structs.insert(fs_id).second};
    if (t.share.descriptors && &t < &takers[leaders])
      parallel.push_back(&t);
    else if (!t.share.descriptors && t.share.directories)
      // Through a table that another one fills: while it is empty, and one at a time.
      take(t);
  }
  // A channel carries one message at a time.
  const auto channels = static_cast<size_t>(tree.channels().count());
  const std::span<const Taker* const> all(parallel);
  for (size_t first = 0; first < all.size(); first += channels) {
    const auto some = all.subspan(first, std::min(channels, all.size() - first));
    std::vector<SyscallBatch> batches(some.size());
    for (size_t i = 0; i < some.size(); ++i) {
      take_over_files(tree, *some[i], static_cast<int>(i), files, directories, batches[i], waiter);
      if (!batches[i].empty()) tree.puppet(*some[i]->process).start(batches[i]);
    }
    for (size_t i = 0; i < some.size(); ++i)
      if (!batches[i].empty()) tree.puppet(*some[i]->process).finish(batches[i], waiter);
  }
  for (const Taker& t : std::span(takers).subspan(leaders))
    if (t.share.descriptors) take(t);
}

void settle(PuppetTree& tree, Processes processes, RestoredFiles& files, const RestoreOptions& options,
            StopWaiter& waiter) {
  take_file_locks(tree, processes, files, waiter);
  // From outside, while the tasks still have the credentials of this program.
  constexpr size_t kThreadsPerJob = 64;
  std::vector<std::function<void()>> jobs;
  for (const PlannedProcess* p : processes) {
    tree.puppet(*p).host().set_report(free_report_signal(*p));
    for (size_t first = 0; first < p->threads.size(); first += kThreadsPerJob)
      jobs.emplace_back([p, first, &options] {
        if (first == 0) p->states.apply(view_of(*p, p->threads.front(), options));
        const auto end = std::min(first + kThreadsPerJob, p->threads.size());
        for (size_t i = first; i < end; ++i) p->threads[i].states.apply(view_of(*p, p->threads[i], options));
      });
  }
  tree.workers().start(std::move(jobs));
  tree.workers().finish();
  const auto settle_process = [&](const PlannedProcess& p, SyscallBatch& batch) {
    p.states.settle(view_of(p, p.threads.front(), options), batch);
    for (const RestoredFiles::AsyncSlot& slot : files.async_slots(p.ids.files_id()))
      batch.must(SYS_fcntl, {slot.number, F_SETFL, slot.flags});
    files.call(p.ids.files_id(), batch);
  };
  // Before children ask to be told of the end of their parent, which the end of its leader is.
  for (const PlannedProcess* p : processes) {
    if (!p->leader_has_ended()) continue;
    Puppet& puppet = tree.puppet(*p);
    SyscallBatch batch;
    const BatchData name = batch.text(p->name);
    batch.must(SYS_prctl, {PR_SET_NAME, name});
    settle_process(*p, batch);
    const PlannedThread& first = p->threads.front();  // the leader had the same credentials
    Credentials::settle(first.states.get<Credentials>(), view_of(*p, first, options), batch);
    puppet.run(batch, waiter);
    puppet.end_leader(static_cast<int>(p->task.leader_status.value_or(0) >> 8), p->task.blocked, waiter);
  }
  // The process as a whole before the credentials of any thread; threads end with theirs.
  run_in_leaders(tree, processes, waiter, [&](const PlannedProcess& p, SyscallBatch& batch) {
    if (!p.leader_has_ended()) settle_process(p, batch);
    p.threads.front().states.settle(view_of(p, p.threads.front(), options), batch);
  });
  for (const PlannedProcess* p : processes)
    run_in_threads(tree.puppet(*p), *p, waiter, [&](const PlannedThread& t, SyscallBatch& batch) {
      if (t.tables) {
        for (const RestoredFiles::AsyncSlot& slot : files.async_slots(t.tables->files))
          batch.must(SYS_fcntl, {slot.number, F_SETFL, slot.flags});
        files.call(t.tables->files, batch);
      }
      t.states.settle(view_of(*p, t, options), batch);
    });
}

void make_ready(PuppetTree& tree, Processes processes, const RestoreOptions& options,
                const std::optional<RestoredClocks>& clocks, StopWaiter& waiter) {
  run_in_leaders(tree, processes, waiter, [&](const PlannedProcess& p, SyscallBatch& batch) {
    const SettleView leader = view_of(p, p.threads.front(), options, clocks);
    p.states.arm(leader, batch);
    p.threads.front().states.arm(leader, batch);
  });
  for (const PlannedProcess* p : processes) {
    run_in_threads(tree.puppet(*p), *p, waiter,
                   [&](const PlannedThread& t, SyscallBatch& batch) { t.states.arm(view_of(*p, t, options), batch); });
    load_final_state(tree.puppet(*p), *p, clocks, waiter);
  }
  for (const PlannedProcess* p : processes) tree.puppet(*p).start_unmap();
  for (const PlannedProcess* p : processes) tree.puppet(*p).enter_unmap(waiter);
  for (const PlannedProcess* p : processes) tree.puppet(*p).finish_unmap(waiter);
  for (const PlannedProcess* p : processes) {
    Puppet& puppet = tree.puppet(*p);
    for (size_t i = 1; i < p->threads.size(); ++i) puppet.threads()[i].give_back();
    for (const PlannedThread& t : p->threads) put_back_rseq_section(t.states.get<Rseq>(), t.tid);
  }
}

}  // namespace stasis
