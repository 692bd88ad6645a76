#include "checkpoint/frozen_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <tuple>

#include "base/error.h"
#include "base/log.h"
#include "base/nanoseconds.h"
#include "kernel/process.h"
#include "memory/vdso.h"
#include "objects/task/future_locks.h"
#include "objects/task/task_state.h"
#include "objects/thread_births.h"

namespace stasis {

namespace {

// Slots beside the leader's: enough threads in flight to keep every CPU busy, few enough to stay in the cache.
constexpr unsigned kThreadSlots = 32;
constexpr size_t kThreadSlotBytes = 4096;
constexpr size_t kLeaderSlotBytes = 24576;
constexpr size_t kDescriptorBytes = 96;  // one table entry, rounded up
constexpr size_t kThreadsPerJob = 32;
constexpr size_t kMostAuxvBytes = 1024;

// Text of /proc, on its way to a parser.
thread_local ProcBuffer scratch;

}  // namespace

WarmProc warm_proc(pid_t pid) noexcept {
  constexpr const char* kFiles[] = {"smaps", "stat", "status", "mem", "pagemap",
                                    "exe",   "cwd",  "root",   "fd",  "timens_offsets"};
  try {
    const ProcDir dir(pid);
    const Fd maps = dir.open("maps", O_RDONLY);
    char text[65536];
    ssize_t bytes = 0;
    for (ssize_t n; (n = ::read(maps.get(), text + bytes, sizeof text - static_cast<size_t>(bytes))) > 0;) bytes += n;
    dir.warm(kFiles);
    dir.warm(task_object_files());
    (void)dir.fds();
    for (pid_t tid : dir.threads()) {
      if (tid == pid) continue;
      const std::string stat = fmt::format("task/{}/stat", tid), status = fmt::format("task/{}/status", tid);
      const char* const names[] = {stat.c_str(), status.c_str()};
      dir.warm(names);
    }
    // A full buffer tells that there are many, not how many.
    const std::string_view seen(text, static_cast<size_t>(bytes));
    return {bytes == sizeof text ? kManyMappings : static_cast<size_t>(std::ranges::count(seen, '\n')),
            seen.find("anon_inode:[io_uring]") != std::string_view::npos};
  } catch (const Error&) {
    return {};  // it has ended, or will be refused with a reason
  }
}

std::string FrozenProcess::describe() const {
  return fmt::format("pid {} ({})", pid(), threads.empty() ? "?" : threads.front().stat.comm);
}

LookView FrozenProcess::view(FrozenThread& t, const DumpOptions& options) {
  return {options, pid(),      t.tracee->tid(), *t.tracee,     t.stat, t.status,
          proc,    describe(), t.waited_ns,     monotonic_ns_, compat};
}

void FrozenProcess::add_jobs(std::vector<std::function<void()>>& jobs, bool few_processes,
                             MappingReader* mapping_reader) {
  mapping_reader_ = mapping_reader;
  threads.reserve(seized->threads.size());
  for (Tracee& t : seized->threads) threads.emplace_back(t);
  // The mappings cost as much as everything else: a job of their own when there are fewer processes than processors.
  if (few_processes)
    jobs.emplace_back([this] {
      ProcDir dir(task());
      read_mappings(dir);
    });
  // The first thread to use `proc`; the tracing thread uses it when the job is done.
  jobs.emplace_back([this, few_processes] {
    const int opened = pidfd_open(task(), leader_has_ended() ? uapi::pidfd_thread : 0);
    if (opened == -EINVAL && leader_has_ended())
      throw Error(Reason::UNSUPPORTED_STATE, "its main thread has ended")
          .object(fmt::format("pid {}", pid()))
          .remedy("use Linux 6.9 or later, which tells the descriptors of a thread");
    pidfd.reset(static_cast<int>(fail_if(opened, "cannot open a pidfd")));
    if (!few_processes) read_mappings(proc);
    read_threads(proc, 0, std::min(kThreadsPerJob, threads.size()));
    for (int number : proc.fds()) descriptors.push_back({number, false});
    namespaces = read_namespaces(proc, pidfd.get());
    proc.prefetch(task_object_files(), scratch);
    memory_ = proc.open("mem", O_RDWR);
    if (!few_processes) read_code();
  });
  for (size_t first = kThreadsPerJob; first < threads.size(); first += kThreadsPerJob)
    jobs.emplace_back([this, first] {
      ProcDir dir(task());
      read_threads(dir, first, std::min(first + kThreadsPerJob, threads.size()));
    });
}

void FrozenProcess::read_mappings(ProcDir& dir) {
  if (mapping_reader_ != nullptr) {
    mapping_reader_->read(dir, scratch, mappings);
  } else {
    mappings.clear();
    parse_smaps(dir.read("smaps", scratch), mappings);
  }
  vmas = classify(mappings);
}

// What of the memory says where a bootstrap can go, and which threads still run one. It is read once, and before
// anything is written into the tail of the vdso.
void FrozenProcess::read_code() {
  MemoryView memory(memory_.get());
  for (const Vma& v : vmas)
    if (v.has(vma_status::vdso)) {
      vdso_image.resize(v.size_bytes());
      if (!memory.read(v.start, vdso_image.data(), vdso_image.size()))
        throw Error(Reason::SYSTEM, "its vdso cannot be read").object(fmt::format("pid {}", pid()));
      memory = MemoryView(memory_.get(), v.start, vdso_image);
    }
  controllers_ = controller_code(mappings, memory);
  const bool narrow = elf_class(vdso_image) == ElfClass::elf32;
  hole_ = find_bootstrap_hole(mappings, memory, Borrowed::bootstrap_bytes(narrow));
}

void FrozenProcess::read_threads(ProcDir& dir, size_t first, size_t end) {
  for (size_t i = first; i < end; ++i) {
    FrozenThread& t = threads[i];
    const std::string base = i == 0 ? std::string() : fmt::format("task/{}/", t.tracee->tid());
    t.stat = parse_stat(dir.read((base + "stat").c_str(), scratch));
    // Listed as threads, but kernel code without registers of its own. Those of io_uring are made when they are needed
    // and work for requests, of which none may be in flight.
    if (t.stat.io_worker()) continue;
    if (t.stat.user_worker())
      throw Error(Reason::UNSUPPORTED_STATE, "it has worker threads of the kernel (vhost)")
          .object(fmt::format("pid {} ({})", pid(), t.stat.comm))
          .remedy("close the device that they work for before the dump");
    t.status = parse_status(dir.read((base + "status").c_str(), scratch));
    t.waited_ns = waits_.waited_ns(t.tracee->tid(), t.status.voluntary_switches);
  }
}

void FrozenProcess::read_registers() {
  for (Tracee& t : seized->threads) t.save_own_state();
}

void FrozenProcess::look(const DumpOptions& options, SeccompFilters& filters, StopWaiter& waiter) {
  let_heal(waiter);
  has_ring_workers = std::erase_if(threads, [](const FrozenThread& t) { return t.stat.io_worker(); }) != 0;
  compat = runs_compat_program();
  for (FrozenThread& t : threads) {
    const LookView v = view(t, options);
    t.states.look(v);
    if (t.status.seccomp != 0) look_at_filters(t, filters);
    if (&t == &threads.front()) {
      states.look(v);
    } else if (kcmp(task(), t.tracee->tid(), uapi::kcmp_files) != 0 ||
               kcmp(task(), t.tracee->tid(), uapi::kcmp_fs) != 0) {
      look_at_tables(t);
    }
  }
  if (leader_has_ended()) look_at_ended_leader();
}

// What the process has by its leader, though that has ended.
void FrozenProcess::look_at_ended_leader() {
  ProcDir dir(pid());
  const ProcStat stat = parse_stat(dir.read("stat"));
  const ProcStatus status = parse_status(dir.read("status"));
  const auto credentials = [](const ProcStatus& s) {
    return std::tie(s.uid, s.gid, s.groups, s.cap_inheritable, s.cap_permitted, s.cap_effective, s.cap_bounding,
                    s.cap_ambient);
  };
  // Who may send signals to the process is decided by those of its leader.
  if (credentials(status) != credentials(threads.front().status))
    throw Error(Reason::UNSUPPORTED_STATE, "its main thread has ended, and had other credentials than the first other")
        .object(describe())
        .remedy("change credentials in all threads, as the C library does");
  TaskState::State& state = states.edit<TaskState>();
  state.blocked = status.sig_blocked;
  state.comm = stat.comm;
  state.exit_signal = stat.exit_signal;
  state.leader_status = static_cast<uint32_t>(stat.exit_code);
  if ((stat.exit_code & ~0xff00) != 0)
    throw Error(Reason::UNSUPPORTED_STATE, "its main thread was killed alone, by a seccomp filter")
        .object(describe())
        .remedy("use SECCOMP_RET_KILL_PROCESS in filters");
}

void FrozenProcess::look_at_tables(FrozenThread& t) {
  const pid_t tid = t.tracee->tid();
  t.own_tables = std::make_unique<OwnTables>();
  t.own_tables->pidfd.reset(pidfd_open(tid, uapi::pidfd_thread));
  if (!t.own_tables->pidfd)
    throw Error(Reason::UNSUPPORTED_STATE,
                fmt::format("its thread {} has descriptors or a working directory of its own", tid))
        .object(describe())
        .remedy("use Linux 6.9 or later, which tells the descriptors of a thread");
  ProcDir dir(tid);
  for (const int number : dir.fds()) {
    const FdInfo info = parse_fdinfo(dir.read(fmt::format("fdinfo/{}", number).c_str(), scratch));
    t.own_tables->descriptors.push_back({number, (info.flags & O_CLOEXEC) != 0});
  }
}

void FrozenProcess::check_thread_tables() const {
  std::vector<ThreadTables> tables;
  bool own = false;
  for (const FrozenThread& t : threads) {
    const KernelIds& numbers = t.own_tables ? t.own_tables->ids : ids;
    tables.push_back({numbers.files, numbers.fs});
    own |= t.own_tables != nullptr;
  }
  if (!own) return;
  if (plan_thread_births(tables).empty())
    throw Error(Reason::UNSUPPORTED_STATE, "its threads share descriptors and working directories crosswise")
        .object(describe())
        .remedy("let threads that share one of them share the other one, too");
  for (const FrozenThread& t : threads)
    if (t.states.get<Seccomp>().filter != threads.front().states.get<Seccomp>().filter)
      throw Error(Reason::UNSUPPORTED_STATE,
                  "its threads differ in their seccomp filters, and in descriptors or working directory")
          .object(describe())
          .remedy("install the filters in all threads (SECCOMP_FILTER_FLAG_TSYNC)");
}

// The kernel gives each program the vdso of its width, and a narrow one no other addresses. What a thread runs at the
// moment does not count: some programs change to and fro.
bool FrozenProcess::runs_compat_program() {
  if (!vdso_image.empty()) return elf_class(vdso_image) == ElfClass::elf32;
  return arch::is_compat(leader().tracee->own_registers()) &&
         (mappings.empty() || mappings.back().end <= arch::address_end(true, 0));
}

// Batches run with the seccomp mode suspended. That ends with this program: whoever may not make the calls of the way
// home gets a way without any.
void FrozenProcess::look_at_filters(FrozenThread& t, SeccompFilters& filters) {
  t.tracee->suspend_seccomp();
  if (t.status.seccomp == SECCOMP_MODE_STRICT) return t.tracee->keep_mask();
  const std::vector<SeccompFilter> chain = read_seccomp_filters(*t.tracee);
  if (!allow_way_home(chain, *t.tracee, report_signal())) t.tracee->keep_mask();
  try {
    t.states.edit<Seccomp>().filter = filters.add(chain, has_spec_allow(t.status));
  } catch (Error& e) {
    e.default_object(describe());
    throw;
  }
}

// A thread whose controller died may still be on its way back; its page must be left to it.
void FrozenProcess::let_heal(StopWaiter& waiter) {
  if (hole_ == 0) read_code();
  for (int tries = 0;; ++tries) {
    bool healing = false;
    for (Tracee& t : seized->threads) {
      const uint64_t ip = arch::instruction_pointer(t.own_registers());
      if (std::none_of(controllers_.begin(), controllers_.end(),
                       [&](const AddressRange& r) { return ip >= r.start && ip < r.end; }))
        continue;
      healing = true;
      t.resume();
      usleep(200);
      t.interrupt();
      t.await_stop(waiter, Clock::now() + BatchHost::kPatience);
      t.save_own_state();
    }
    if (!healing) return;
    read_mappings(proc);
    read_code();
    if (tries == 50)
      throw Error(Reason::TRACEE_LOST, "a thread stays in the code of an earlier dump that was killed")
          .object(fmt::format("pid {}", pid()));
  }
}

ReportSignal FrozenProcess::report_signal() const {
  SignalUse use;
  use.ignored = threads.front().status.sig_ignored;
  use.caught = threads.front().status.sig_caught;
  use.pending = threads.front().status.shared_pending;
  for (const FrozenThread& t : threads) {
    use.blocked |= t.tracee->own_signal_mask();
    use.pending |= t.status.sig_pending;
  }
  return choose_report_signal(use);
}

void FrozenProcess::start_borrow() {
  slots_ = 1 + std::min<unsigned>(static_cast<unsigned>(threads.size()) - 1, kThreadSlots);
  borrowed_ = std::make_unique<Borrowed>(pid(), leader().stat.comm, *leader().tracee, std::move(memory_));
  borrowed_->start_open(
      mappings,
      {.slots = slots_,
       .first_slot_bytes = kLeaderSlotBytes + descriptors.size() * kDescriptorBytes + AreaPolicies::first_bytes(vmas),
       .other_slot_bytes = kThreadSlotBytes,
       .hole = hole_},
      report_signal());
}

void FrozenProcess::finish_borrow(StopWaiter& waiter) {
  borrowed_->finish_open(waiter);
  FutureLocks::look_at_new_mapping(task(), pidfd.get(), borrowed_->host().area().address(), states.edit<FutureLocks>());
}

void FrozenProcess::set_clock(const pb::timespec& monotonic) {
  monotonic_ns_ = monotonic.tv_sec() * kSecond_ns + monotonic.tv_nsec();
}

void FrozenProcess::start_leader_batch(const DumpOptions& options) {
  const LookView v = view(leader(), options);
  states.ask(v, leader_batch_);
  leader().states.ask(v, leader_batch_);
  brk_call_ = leader_batch_.call(SYS_brk, {0});
  auxv_data_ = leader_batch_.space(kMostAuxvBytes);
  auxv_call_ = leader_batch_.call(SYS_prctl, {uapi::pr_get_auxv, auxv_data_, kMostAuxvBytes, 0, 0});
  descriptor_calls_.reserve(descriptors.size());
  for (const DescriptorNumber& d : descriptors)
    descriptor_calls_.push_back(leader_batch_.must(SYS_fcntl, {d.number, F_GETFD}));
  policies.ask(vmas, leader_batch_);
  borrowed_->host().start(*leader().tracee, 0, leader_batch_);
}

// What the answers make objects ask further, until none does.
void FrozenProcess::ask_on(ObjectStates& of, FrozenThread& thread, unsigned slot, const DumpOptions& options,
                           StopWaiter& waiter) {
  for (SyscallBatch more; of.asks_again(); more.clear()) {
    of.ask_again(view(thread, options), more);
    borrowed_->host().run(*thread.tracee, slot, more, waiter);
    of.answer_again(more, describe());
  }
}

void FrozenProcess::finish_leader_batch(const DumpOptions& options, StopWaiter& waiter) {
  borrowed_->host().finish(*leader().tracee, 0, leader_batch_, waiter);
  states.answer(leader_batch_, describe());
  leader().states.answer(leader_batch_, describe());
  ask_on(states, leader(), 0, options, waiter);
  ask_on(leader().states, leader(), 0, options, waiter);
  policies.answer(vmas, leader_batch_);
  for (SyscallBatch more; policies.ask(vmas, more); more.clear()) {
    borrowed_->host().run(*leader().tracee, 0, more, waiter);
    policies.answer(vmas, more);
  }
  brk = static_cast<uint64_t>(leader_batch_.result(brk_call_));
  const int64_t auxv_bytes = leader_batch_.result(auxv_call_);
  // EINVAL before Linux 6.4.
  auxv = parse_auxv(auxv_bytes > 0 && static_cast<uint64_t>(auxv_bytes) <= kMostAuxvBytes
                        ? leader_batch_.bytes(auxv_data_).first(static_cast<size_t>(auxv_bytes))
                        : proc.read_bytes("auxv"));
  for (size_t i = 0; i < descriptors.size(); ++i)
    descriptors[i].cloexec = (leader_batch_.result(descriptor_calls_[i]) & FD_CLOEXEC) != 0;
}

void FrozenProcess::run_thread_batches(const DumpOptions& options, StopWaiter& waiter) {
  BatchHost& host = borrowed_->host();
  std::vector<SyscallBatch> batches(slots_);
  for (size_t first = 1; first < threads.size(); first += slots_ - 1) {
    const size_t count = std::min<size_t>(slots_ - 1, threads.size() - first);
    for (size_t i = 0; i < count; ++i) {
      batches[i].clear();
      threads[first + i].states.ask(view(threads[first + i], options), batches[i]);
      host.start(*threads[first + i].tracee, static_cast<unsigned>(i) + 1, batches[i]);
    }
    for (size_t i = 0; i < count; ++i) {
      FrozenThread& t = threads[first + i];
      host.finish(*t.tracee, static_cast<unsigned>(i) + 1, batches[i], waiter);
      t.states.answer(batches[i], describe());
      ask_on(t.states, t, static_cast<unsigned>(i) + 1, options, waiter);
      t.tracee->give_back();
    }
  }
}

void FrozenProcess::start_give_back() {
  borrowed_->start_close();
}

void FrozenProcess::finish_give_back(StopWaiter& waiter) {
  borrowed_->finish_close(waiter);
  borrowed_.reset();
}

}  // namespace stasis
