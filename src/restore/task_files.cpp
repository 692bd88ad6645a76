#include "restore/task_files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <algorithm>
#include <map>

#include "base/error.h"
#include "base/page_size.h"
#include "kernel/proc.h"
#include "kernel/proc_maps.h"
#include "kernel/process.h"

namespace stasis {

namespace {

// Nothing is mapped below, whatever the limit is (vm.mmap_min_addr).
constexpr uint64_t kLowest = 65536;
constexpr size_t kRoomForACall = 1024;  // bytes that a batch leaves free

class Maker final : public MakingTask {
 public:
  Maker(Puppet& puppet, Tracee& thread, bool own_table, StopWaiter& waiter)
      : puppet_(puppet), thread_(thread), waiter_(waiter) {
    pid = thread.tid();
    who = thread.describe();
    batch_bytes = kLeaderSlotBytes;
    pidfd_.reset(
        static_cast<int>(fail_if(pidfd_open(own_table ? pid : puppet.pid(), own_table ? uapi::pidfd_thread : 0),
                                 "cannot open a pidfd", Reason::RESTORE_CALL_FAILED)));
  }
  void run(SyscallBatch& batch) override { puppet_.host().run(thread_, 0, batch, waiter_); }
  Fd duplicate(int of) override {
    return Fd(static_cast<int>(
        fail_if(pidfd_getfd(pidfd_.get(), of), "cannot get a duplicate of a descriptor", Reason::RESTORE_CALL_FAILED)));
  }

 private:
  Puppet& puppet_;
  Tracee& thread_;
  StopWaiter& waiter_;
  Fd pidfd_;
};

// A descriptor table, and a thread that has it.
struct TableUser {
  const PlannedProcess* process;
  pid_t tid;
  uint32_t files_id;
  bool own_table;
};

std::vector<TableUser> users_of_tables(Processes processes) {
  std::vector<TableUser> out;
  const auto add = [&](const TableUser& user) {
    if (std::ranges::find(out, user.files_id, &TableUser::files_id) == out.end()) out.push_back(user);
  };
  for (const PlannedProcess* p : processes) add({p, p->pid, p->ids.files_id(), false});
  for (const PlannedProcess* p : processes)
    for (const PlannedThread& t : p->threads)
      if (t.tables) add({p, t.tid, t.tables->files, true});
  return out;
}

// Where a file was made: a process and its number there.
struct Made {
  pid_t pid;       // or the thread with a table of its own
  unsigned flags;  // of pidfd_open()
  int number;
};

class TaskFiles {
 public:
  TaskFiles(PuppetTree& tree, RestoredFiles& files, StopWaiter& waiter) : tree_(tree), files_(files), waiter_(waiter) {}

  void make(const TableUser& user) {
    const std::vector<DescriptorSlot>& table = files_.descriptors(user.files_id);
    for (const DescriptorSlot& slot : table) {
      if (!files_.made_by_task(slot.id)) continue;
      Puppet& puppet = tree_.puppet(*user.process);
      Maker task(puppet, thread_for(user, slot.id), user.own_table, waiter_);
      task.number = slot.number;
      task.table = table;
      const auto [at, fresh] = made_.try_emplace(slot.id, made_by(user, slot.number));
      if (fresh) {
        files_.make(slot.id, task);
      } else {
        take_duplicate(at->second, task);
      }
      SyscallBatch batch;
      batch.must(SYS_fcntl, {slot.number, F_SETFD, slot.cloexec ? FD_CLOEXEC : 0});
      task.run(batch);
    }
  }

  void map(const PlannedProcess& p) {
    for (const Vma& v : p.vmas.areas)
      if (v.mapped_later) map(p, v);
  }

 private:
  static Made made_by(const TableUser& user, int number) {
    if (user.own_table) return {user.tid, uapi::pidfd_thread, number};
    return {user.process->pid, 0, number};
  }
  // The one that the file belongs to, if that is of this process.
  Tracee& thread_for(const TableUser& user, uint32_t id) {
    Puppet& puppet = tree_.puppet(*user.process);
    const pid_t wanted = files_.maker(id);
    if (made_.contains(id) || wanted == 0)
      return user.tid == user.process->pid ? puppet.leader() : puppet.thread(user.tid);
    const auto& threads = user.process->threads;
    if (std::ranges::find(threads, wanted, &PlannedThread::tid) == threads.end())
      throw Error(Reason::IMAGE_CORRUPT, fmt::format("file {} belongs to thread {}, which is not there", id, wanted))
          .object(user.process->describe());
    return puppet.thread(wanted);
  }

  // It cannot travel as a message, so the task gets it itself.
  void take_duplicate(const Made& made, MakingTask& task) {
    SyscallBatch batch;
    const auto pidfd = batch.must(SYS_pidfd_open, {made.pid, made.flags});
    const auto got = batch.must(SYS_pidfd_getfd, {pidfd, made.number, 0});
    task.run(batch);
    const int64_t own = batch.result(pidfd), fd = batch.result(got);
    batch.clear();
    // Either may have been given the number that is wanted.
    if (own == task.number) batch.must(SYS_dup3, {fd, task.number, O_CLOEXEC});
    if (own != task.number) batch.must(SYS_close, {own});
    if (own != task.number && fd != task.number) batch.must(SYS_dup3, {fd, task.number, O_CLOEXEC});
    if (fd != task.number) batch.must(SYS_close, {fd});
    task.run(batch);
  }

  // A descriptor in a process, and which are to be closed again.
  struct Lent {
    int64_t number;
    std::vector<int64_t> close;
  };
  // Not every process that maps a file has a descriptor of it.
  Lent borrow(const PlannedProcess& p, uint32_t id, const std::string& what) {
    const auto& table = files_.descriptors(p.ids.files_id());
    const auto slot = std::ranges::find(table, id, &DescriptorSlot::id);
    if (slot != table.end()) return {slot->number, {}};
    const auto made = made_.find(id);
    if (made == made_.end())
      throw Error(Reason::IMAGE_CORRUPT, fmt::format("mapping {} is of a file that nobody has", what))
          .object(p.describe());
    SyscallBatch batch;
    const auto pidfd = batch.must(SYS_pidfd_open, {made->second.pid, made->second.flags});
    const auto got = batch.must(SYS_pidfd_getfd, {pidfd, made->second.number, 0});
    tree_.puppet(p).run(batch, waiter_);
    return {batch.result(got), {batch.result(pidfd), batch.result(got)}};
  }

  // The kernel takes no address for some of these mappings (io_uring since Linux 6.5): it chooses one. So all room is
  // taken but the place where the mapping belongs.
  void map(const PlannedProcess& p, const Vma& v) {
    Puppet& puppet = tree_.puppet(p);
    const Lent file = borrow(p, static_cast<uint32_t>(v.shmid), describe(v));
    const std::vector<AddressRange> taken = room_beside(p, v);
    SyscallBatch batch;
    const auto run_if_full = [&] {
      if (batch.size() + kRoomForACall <= kLeaderSlotBytes) return;
      puppet.run(batch, waiter_);
      batch.clear();
    };
    for (const AddressRange& r : taken) {
      batch.call(SYS_mmap, {r.start, r.size_bytes(), PROT_NONE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0});
      run_if_full();
    }
    const auto flags = static_cast<int>(v.flags & ~uint32_t{MAP_LOCKED});
    const auto call = batch.must(SYS_mmap, {0, v.size_bytes(), v.prot, flags, file.number, v.pgoff_bytes});
    puppet.run(batch, waiter_);
    const auto got = static_cast<uint64_t>(batch.result(call));
    batch.clear();
    for (const AddressRange& r : taken) {
      batch.must(SYS_munmap, {r.start, r.size_bytes()});
      run_if_full();
    }
    for (const int64_t n : file.close) batch.must(SYS_close, {n});
    if (got != v.start)
      throw Error(
          Reason::RESTORE_CALL_FAILED,
          fmt::format("the kernel put the mapping {} at {:x}, although no other place was free", describe(v), got))
          .object(p.describe());
    for (uint64_t left = v.madv; left != 0; left &= left - 1)
      batch.must(SYS_madvise, {v.start, v.size_bytes(), __builtin_ctzll(left)});
    if (v.is_locked()) batch.must(SYS_mlock2, {v.start, v.size_bytes(), 0});
    if (v.sealed) batch.must(uapi::sys_mseal, {v.start, v.size_bytes(), 0});
    if (!batch.empty()) puppet.run(batch, waiter_);
  }

  // Every hole that would be large enough, without the place of `v` itself.
  std::vector<AddressRange> room_beside(const PlannedProcess& p, const Vma& v) {
    std::vector<AddressRange> out;
    const auto add = [&](uint64_t from, uint64_t to) {
      if (to > from && to - from >= v.size_bytes()) out.push_back({from, to});
    };
    uint64_t from = kLowest;
    const auto hole = [&](uint64_t to) {
      if (from <= v.start && v.end <= to) {
        add(from, v.start);
        add(v.end, to);
      } else {
        add(from, to);
      }
    };
    for (const Mapping& m : parse_maps(ProcDir(p.pid).read("maps"))) {
      if (m.start >= p.address_end()) break;
      hole(m.start);
      from = std::max(from, m.end);
    }
    hole(p.address_end());
    return out;
  }

  PuppetTree& tree_;
  RestoredFiles& files_;
  StopWaiter& waiter_;
  std::map<uint32_t, Made> made_;
};

}  // namespace

void make_files_in_tasks(PuppetTree& tree, Processes processes, RestoredFiles& files, StopWaiter& waiter) {
  TaskFiles maker(tree, files, waiter);
  for (const TableUser& user : users_of_tables(processes)) maker.make(user);
  for (const PlannedProcess* p : processes) maker.map(*p);
}

}  // namespace stasis
