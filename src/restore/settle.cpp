#include "restore/settle.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "base/error.h"
#include "objects/task/registers.h"
#include "objects/task/rseq.h"
#include "objects/task/pending_signals.h"
#include "objects/task/signal_mask.h"
#include "restore/sleep.h"

namespace stasis {

namespace {

SettleView view_of(const PlannedProcess& p, const PlannedThread& t, const RestoreOptions& options) {
  return {options, p.pid, t.tid, p.pid, t.tid, p.describe()};
}

// A signal that the images do not hold as pending: reporting by it takes nothing out of a queue. The handler of the task
// does not matter, the controller never lets the signal through.
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
    for (size_t i : started)
      host.finish(puppet.threads()[first + i], static_cast<unsigned>(i) + 1, batches[i], waiter);
  }
}

}  // namespace

void hand_over_files(PuppetTree& tree, const PlannedProcess& p, RestoredFiles& files, StopWaiter& waiter) {
  Puppet& puppet = tree.puppet(p);
  const int channel = tree.channel().number();
  const auto& table = files.descriptors(p.ids.files_id());  // ascending by number

  // Received descriptors get 0, 1, 2 ... in the order of their final numbers, so that none has to be moved away before
  // another: going down, the final number of each is free or its own.
  std::vector<int> sent;
  for (const DescriptorSlot& slot : table) sent.push_back(files.fd_of(slot.id));
  const int count = static_cast<int>(sent.size());
  const Fd cwd = files.open_path(p.fs.cwd_id(), O_PATH | O_DIRECTORY);
  sent.push_back(cwd.get());
  Fd root;
  const bool changes_root = files.path_file(p.fs.root_id()).path != "/";
  if (changes_root) {
    root = files.open_path(p.fs.root_id(), O_PATH | O_DIRECTORY);
    sent.push_back(root.get());
  }

  SyscallBatch batch;
  const auto run = [&] {
    puppet.run(batch, waiter);
    batch.clear();
  };
  for (size_t first = 0; first < sent.size(); first += FdChannel::kMost) {
    const auto part = std::span(sent).subspan(first, std::min(FdChannel::kMost, sent.size() - first));
    tree.channel().send(part);
    FdChannel::receive(batch, channel, part.size());
    if (first + FdChannel::kMost < sent.size()) run();
  }
  if (changes_root) {
    batch.must(SYS_fchdir, {count + 1});
    const BatchData here = batch.text(".");
    batch.must(SYS_chroot, {here});
    batch.must(SYS_close, {count + 1});
  }
  batch.must(SYS_fchdir, {count});
  batch.must(SYS_close, {count});
  batch.must(SYS_umask, {p.fs.umask()});
  for (int i = count; i-- > 0;) {
    const DescriptorSlot& slot = table[static_cast<size_t>(i)];
    if (slot.number != i) {
      batch.must(SYS_dup3, {i, slot.number, slot.cloexec ? O_CLOEXEC : 0});
      batch.must(SYS_close, {i});
    } else if (slot.cloexec) {
      batch.must(SYS_fcntl, {i, F_SETFD, FD_CLOEXEC});
    }
    if (batch.size() + 1024 > kLeaderSlotBytes) run();
  }
  batch.must(SYS_close, {channel});
  run();
}

void settle(PuppetTree& tree, const PlannedProcess& p, const RestoredFiles& files, const RestoreOptions& options,
            StopWaiter& waiter) {
  Puppet& puppet = tree.puppet(p);
  const SettleView leader = view_of(p, p.threads.front(), options);
  puppet.host().set_report(free_report_signal(p));
  SyscallBatch batch;
  p.states.settle(leader, batch);
  for (const RestoredFiles::AsyncSlot& slot : files.async_slots(p.ids.files_id()))
    batch.must(SYS_fcntl, {slot.number, F_SETFL, slot.flags});
  if (!batch.empty()) puppet.run(batch, waiter);
  // While the tasks still have the credentials of this program.
  p.states.apply(leader);
  for (const PlannedThread& t : p.threads) t.states.apply(view_of(p, t, options));
  run_in_threads(puppet, p, waiter, [&](const PlannedThread& t, SyscallBatch& b) {
    t.states.settle(view_of(p, t, options), b);
  });
  batch.clear();
  p.threads.front().states.settle(leader, batch);
  if (!batch.empty()) puppet.run(batch, waiter);
}

void make_ready(PuppetTree& tree, const PlannedProcess& p, const RestoreOptions& options, StopWaiter& waiter) {
  Puppet& puppet = tree.puppet(p);
  const SettleView leader = view_of(p, p.threads.front(), options);
  SyscallBatch batch;
  p.states.arm(leader, batch);
  p.threads.front().states.arm(leader, batch);
  if (!batch.empty()) puppet.run(batch, waiter);
  run_in_threads(puppet, p, waiter, [&](const PlannedThread& t, SyscallBatch& b) {
    t.states.arm(view_of(p, t, options), b);
  });
  const unsigned slots = puppet.host().area().slots();
  for (size_t i = 0; i < p.threads.size(); ++i) {
    Tracee& t = puppet.threads()[i];
    const ObjectStates& states = p.threads[i].states;
    CpuRegisters::State registers = states.get<CpuRegisters>();
    if (const auto sleep = pending_sleep(registers))
      // The slot is free again as soon as the thread sleeps: the kernel has copied what it needs.
      arch::set_call_number(registers.general,
                            restart_sleep(puppet, t, i == 0 ? 0 : 1 + static_cast<unsigned>(i - 1) % (slots - 1),
                                          *sleep, waiter));
    load_registers(registers, t);
    t.set_own_signal_mask(states.get<SignalMask>().blocked);
  }
  puppet.unmap_area(waiter);
  for (size_t i = 1; i < p.threads.size(); ++i) puppet.threads()[i].give_back();
  for (const PlannedThread& t : p.threads) put_back_rseq_section(t.states.get<Rseq>(), p.pid);
}

}  // namespace stasis
