#include "tracee/puppet.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <unordered_map>

#include "base/error.h"
#include "base/log.h"
#include "kernel/proc.h"
#include "kernel/process.h"
#include "kernel/uapi.h"

namespace stasis {

namespace {

// Puppets have no handlers worth mentioning and nothing pending, and a controller is always there.
constexpr ReportSignal kPuppetReport{SIGURG};

constexpr unsigned kPuppetOptions = uapi::ptrace_o_exitkill | PTRACE_O_TRACEEXEC;

// The program itself, and what the kernel is to think of it. A 32-bit program that reads only would be mapped
// executable as long as READ_IMPLIES_EXEC is set.
uint64_t personality_of(const StubKind& kind) {
  return kind.personality & ~uint64_t{READ_IMPLIES_EXEC};
}

int make_stub_file(bool compat) {
  const auto make = [](bool narrow) {
    int f = memfd_create("stasis-stub", MFD_CLOEXEC | uapi::mfd_exec);
    if (f < 0 && errno == EINVAL) f = memfd_create("stasis-stub", MFD_CLOEXEC);  // before 6.3
    const auto stub = arch::stub_executable(narrow);
    if (f >= 0 && write(f, stub.data(), stub.size()) != static_cast<ssize_t>(stub.size())) return -1;
    return f;
  };
  if (compat) {
    static const int fd = make(true);
    return fd;
  }
  static const int fd = make(false);
  return fd;
}

// Runs in the new process until it becomes the stub. Does not return.
[[noreturn]] void become_stub(const StubOptions& options, int go_fd, int go_write_fd, int stub_fd) {
  // With the writing end open here too, the death of a controller that has not seized this process yet would go unseen.
  close(go_write_fd);
  char byte = 0;
  if (read(go_fd, &byte, 1) != 1) _exit(1);
  // Any of these may have a number that another is to get: move all of them out of the way first.
  const int first = options.channels->first_number();
  const int stub = options.channels->end_number();
  const int high_stub = fcntl(stub_fd, F_DUPFD_CLOEXEC, stub + 1);
  int high_ends[FdChannels::kMostChannels];
  for (int i = 0; i < options.channels->count(); ++i)
    high_ends[i] = fcntl(options.channels->puppet_end(i), F_DUPFD_CLOEXEC, stub + 1);
  for (int i = 0; i < options.channels->count(); ++i)
    if (dup3(high_ends[i], options.channels->number(i), 0) < 0) _exit(2);
  if (dup3(high_stub, stub, O_CLOEXEC) < 0) _exit(3);
  if (first > 0) close_range(0, static_cast<unsigned>(first) - 1, 0);
  close_range(static_cast<unsigned>(stub) + 1, ~0u, 0);
  // What the caller ignores (nohup, background jobs of a shell) would survive exec.
  struct sigaction defaults {};
  for (int s = 1; s < _NSIG; ++s) sigaction(s, &defaults, nullptr);
  personality(personality_of(options.kind));
  char name[] = "stasis-stub";
  char* const argv[] = {name, nullptr};
  char* const envp[] = {nullptr};
  execveat(stub, "", argv, envp, AT_EMPTY_PATH);
  _exit(4);
}

Error clone_error(pid_t pid, int error_number) {
  if (error_number == EEXIST)
    return Error(Reason::PID_TAKEN, "the pid is in use")
        .object(fmt::format("pid {}", pid))
        .remedy("end the process that has it, or restore with --new-pid-namespace");
  if (error_number == EPERM)
    return Error(Reason::NO_PRIVILEGE, "a process with a chosen pid cannot be made")
        .object(fmt::format("pid {}", pid))
        .error_number(error_number)
        .remedy("run as root, or with CAP_CHECKPOINT_RESTORE");
  return Error(Reason::RESTORE_CALL_FAILED, "clone3 failed")
      .object(fmt::format("pid {}", pid))
      .error_number(error_number);
}

void await_event(StopWaiter& waiter, pid_t pid, int event) {
  const auto status = waiter.wait(pid, Clock::now() + BatchHost::kPatience, false);
  if (!status || !status->stopped() || status->event() != event)
    throw Error(Reason::RESTORE_CALL_FAILED,
                status ? "the stub does not start: " + status->text() : std::string("the stub does not start"))
        .object(fmt::format("pid {}", pid))
        .remedy("see whether the sysctl vm.memfd_noexec or a security module forbids to execute memory files");
}

}  // namespace

// ---- descriptors -----------------------------------------------------------------------------------------

FdChannels::FdChannels(int first_number, int count) : first_number_(first_number) {
  for (int i = 0; i < count; ++i) {
    int pair[2];
    check(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), "cannot make a socket pair");
    controller_ends_.emplace_back(pair[0]);
    puppet_ends_.emplace_back(pair[1]);
  }
}

void FdChannels::close_puppet_ends() {
  for (Fd& fd : puppet_ends_) fd.reset();
}

void FdChannels::send(int channel, std::span<const int> fds) const {
  char byte = 0;
  iovec io{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(kMost * sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &io;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = CMSG_SPACE(fds.size_bytes());
  cmsghdr header{};
  header.cmsg_level = SOL_SOCKET;
  header.cmsg_type = SCM_RIGHTS;
  header.cmsg_len = CMSG_LEN(fds.size_bytes());
  std::memcpy(control, &header, sizeof header);
  std::memcpy(control + CMSG_LEN(0), fds.data(), fds.size_bytes());
  if (sendmsg(controller_ends_[static_cast<size_t>(channel)].get(), &message, MSG_NOSIGNAL) < 0)
    throw_errno("cannot hand descriptors to a task", Reason::RESTORE_CALL_FAILED);
}

void FdChannels::receive(SyscallBatch& batch, int channel, size_t count) const {
  const BatchData byte = batch.space(1);
  const BatchData io = batch.object(iovec{nullptr, 1});
  batch.point(io.part(offsetof(iovec, iov_base), 8), byte);
  const size_t control_bytes = CMSG_SPACE(count * sizeof(int));
  const BatchData control = batch.space(control_bytes);
  msghdr message{};
  message.msg_iovlen = 1;
  message.msg_controllen = control_bytes;
  const BatchData header = batch.object(message);
  batch.point(header.part(offsetof(msghdr, msg_iov), 8), io);
  batch.point(header.part(offsetof(msghdr, msg_control), 8), control);
  batch.must(SYS_recvmsg, {number(channel), header, MSG_DONTWAIT});
}

// ---- puppets ---------------------------------------------------------------------------------------------

std::unique_ptr<Puppet> Puppet::start_root(const StubOptions& options, const Shape& shape, StopWaiter& waiter) {
  const int stub_fd = make_stub_file(options.kind.compat);
  if (stub_fd < 0) throw_errno("cannot make the stub", Reason::RESTORE_CALL_FAILED);
  int go[2];
  check(pipe2(go, O_CLOEXEC), "cannot make a pipe");
  Fd go_read(go[0]), go_write(go[1]);

  pid_t wanted = options.pid;
  uapi::clone_args args{};
  // A sibling has this program's exit signal, and must not be given one.
  if (options.sibling)
    args.flags = CLONE_PARENT;
  else
    args.exit_signal = SIGCHLD;
  if (wanted != 0) {
    args.set_tid = reinterpret_cast<uint64_t>(&wanted);
    args.set_tid_size = 1;
  }
  log::flush();
  const long got = clone3(args);
  if (got < 0) throw clone_error(wanted, static_cast<int>(-got));
  if (got == 0) become_stub(options, go_read.get(), go_write.get(), stub_fd);

  std::unique_ptr<Puppet> puppet(new Puppet);
  puppet->pid_ = static_cast<pid_t>(got);
  puppet->host_ = BatchHost(puppet->pid_, "stub");
  puppet->threads_.push_back(Tracee::seize(puppet->pid_, puppet->pid_, kPuppetOptions));
  if (write(go_write.get(), "", 1) != 1) throw_errno("cannot start the stub");
  puppet->borrow_stub(options.kind, shape, waiter);
  return puppet;
}

// It is about to execute the stub.
void Puppet::borrow_stub(const StubKind& kind, const Shape& shape, StopWaiter& waiter) {
  Tracee& leader = this->leader();
  // In the exec event the task is still inside execve; the next stop comes before its first instruction.
  await_event(waiter, pid_, PTRACE_EVENT_EXEC);
  leader.interrupt();
  leader.resume();
  if (!leader.await_stop(waiter, Clock::now() + BatchHost::kPatience))
    throw Error(Reason::RESTORE_CALL_FAILED, "the stub does not stop").object(leader.describe());
  leader.save_own_state();

  ProcDir proc(pid_);
  Borrowed borrowed(pid_, "stub", leader, proc.open("mem", O_RDWR));
  borrowed.start_open(parse_maps(proc.read("maps")),
                      {.slots = shape.slots,
                       .first_slot_bytes = shape.first_slot_bytes,
                       .other_slot_bytes = shape.other_slot_bytes,
                       .address = shape.area_address},
                      kPuppetReport);
  borrowed.finish_open(waiter);
  borrowed.abandon();
  host_.set_report(kPuppetReport);
  host_.set_area(borrowed.host().area());

  // Nothing of the stub stays.
  const BatchArea& area = host_.area();
  SyscallBatch batch;
  batch.must(SYS_munmap, {0, area.address()});
  batch.must(SYS_munmap, {area.end(), arch::address_end(kind.compat, kind.personality) - area.end()});
  run(batch, waiter);
}

void Puppet::execute_stub(const StubKind& kind, const FdChannels& channels, const Shape& shape, StopWaiter& waiter) {
  const int stub_fd = make_stub_file(kind.compat);
  if (stub_fd < 0) throw_errno("cannot make the stub", Reason::RESTORE_CALL_FAILED);
  channels.send(0, std::span(&stub_fd, 1));
  SyscallBatch batch;
  channels.receive(batch, 0, 1);
  constexpr int kStub = 0;  // the first of an otherwise empty table
  batch.must(SYS_fcntl, {kStub, F_SETFD, FD_CLOEXEC});
  batch.must(SYS_personality, {personality_of(kind)});
  const BatchData name = batch.text("stasis-stub"), no_path = batch.text("");
  const BatchData arguments = batch.object(std::array<uint64_t, 2>{}), environment = batch.object(uint64_t{0});
  batch.point(arguments.part(0, 8), name);
  batch.must(SYS_execveat, {kStub, no_path, arguments, environment, AT_EMPTY_PATH});
  start(batch);
  borrow_stub(kind, shape, waiter);
}

std::unique_ptr<Puppet> Puppet::adopt_child(const Puppet& parent, pid_t pid, StopWaiter& waiter) {
  std::unique_ptr<Puppet> puppet(new Puppet);
  puppet->pid_ = pid;
  puppet->host_ = BatchHost(pid, "puppet");
  puppet->host_.set_report(kPuppetReport);
  puppet->host_.set_area(parent.host_.area());
  puppet->adopt_thread(pid, waiter);
  return puppet;
}

Tracee& Puppet::adopt_thread(pid_t tid, StopWaiter& waiter) {
  threads_.push_back(Tracee::adopt(pid_, tid));
  Tracee& t = threads_.back();
  if (!t.await_stop(waiter, Clock::now() + BatchHost::kPatience))
    throw Error(Reason::RESTORE_CALL_FAILED, "a cloned task does not stop").object(t.describe());
  t.save_own_state();
  return t;
}

void Puppet::clone_threads(Tracee& by, std::span<const pid_t> tids, size_t room, StopWaiter& waiter, uint64_t tables) {
  const pid_t cloner = by.tid();
  while (!tids.empty()) {
    SyscallBatch batch;
    size_t count = 0;
    for (; count < tids.size() && batch.size() + room <= host_.area().batch_capacity(0); ++count)
      clone_thread(batch, tids[count], tables);
    // Adopting may move the threads.
    const auto at = std::find_if(threads_.begin(), threads_.end(), [&](const Tracee& t) { return t.tid() == cloner; });
    host_.run(*at, 0, batch, waiter);
    for (const pid_t tid : tids.first(count)) adopt_thread(tid, waiter);
    tids = tids.subspan(count);
  }
}

void Puppet::sort_threads(std::span<const pid_t> tids) {
  std::unordered_map<pid_t, size_t> place;
  for (const pid_t tid : tids) place.emplace(tid, place.size());
  std::sort(threads_.begin(), threads_.end(),
            [&](const Tracee& a, const Tracee& b) { return place.at(a.tid()) < place.at(b.tid()); });
}

Puppet::~Puppet() {
  if (threads_.empty() || threads_.front().tid() == 0) return;
  kill(pid_, SIGKILL);
  for (Tracee& t : threads_) t.forget();
  const auto wait_for_end = [](pid_t tid) {
    int status;
    while (waitpid(tid, &status, __WALL) == tid && WIFSTOPPED(status)) {
    }
  };
  // Threads are waited for before the leader: its status comes only after theirs. Some may have been cloned, and thus
  // attached, but not adopted yet.
  try {
    for (pid_t tid : ProcDir(pid_).threads())
      if (tid != pid_) wait_for_end(tid);
  } catch (const Error& e) {
    log_debug("{}", e.what());
  }
  wait_for_end(pid_);
}

void Puppet::run(SyscallBatch& batch, StopWaiter& waiter) {
  host_.run(leader(), 0, batch, waiter);
}
void Puppet::start(SyscallBatch& batch) {
  host_.start(leader(), 0, batch);
}
void Puppet::finish(SyscallBatch& batch, StopWaiter& waiter) {
  host_.finish(leader(), 0, batch, waiter);
}

int Puppet::memory_fd() {
  std::call_once(memory_opened_, [&] { memory_ = ProcDir(pid_).open("mem", O_RDWR); });
  return memory_.get();
}

void Puppet::start_unmap() {
  const BatchArea& area = host_.area();
  const uint64_t args[] = {area.address(), area.bytes()};
  leader().send_to(arch::call_registers(leader().own_registers(), area.reported(), SYS_munmap, args), host_.report());
  leader().start_step();
}

void Puppet::enter_unmap(StopWaiter& waiter) {
  leader().await_step(waiter, Clock::now() + BatchHost::kPatience);
  leader().start_step();
}

void Puppet::finish_unmap(StopWaiter& waiter) {
  leader().await_step(waiter, Clock::now() + BatchHost::kPatience);
  leader().give_back();
}

void Puppet::stop_by(int signal, StopWaiter& waiter) {
  const auto deadline = Clock::now() + BatchHost::kPatience;
  if (!leader().stop_by(signal, waiter, deadline) && !leader().stop_by(SIGSTOP, waiter, deadline))
    throw Error(Reason::RESTORE_CALL_FAILED, "a process that is stopped in the images does not stop")
        .object(leader().describe());
}

Tracee& Puppet::thread(pid_t tid) {
  return *std::find_if(threads_.begin(), threads_.end(), [&](const Tracee& t) { return t.tid() == tid; });
}

void Puppet::end_leader(int status, uint64_t blocked, StopWaiter& waiter) {
  SyscallBatch batch;
  batch.call(SYS_exit, {status});
  leader().stop_at_exit();
  start(batch);
  leader().release_at_exit(waiter, blocked, Clock::now() + BatchHost::kPatience);
  threads_.erase(threads_.begin());
  host_.set_memory_of(leader().tid());
}

void Puppet::die(int wait_status, StopWaiter& waiter) {
  if (WIFEXITED(wait_status)) {
    SyscallBatch batch;
    batch.call(SYS_exit_group, {WEXITSTATUS(wait_status)});
    start(batch);
  } else {
    // No core file of a stub.
    const rlimit64 none{0, 0};
    prlimit64(pid_, RLIMIT_CORE, &none, nullptr);
    leader().end_by(WTERMSIG(wait_status));
  }
  const auto status = waiter.wait(pid_, Clock::now() + BatchHost::kPatience, false);
  if (!status || !status->exited())
    throw Error(Reason::RESTORE_CALL_FAILED, "a process that is dead in the images does not die")
        .object(leader().describe());
  leader().forget();
  threads_.clear();
}

namespace {

SyscallBatch::Call clone_call(SyscallBatch& batch, uint64_t flags, uint64_t exit_signal, pid_t id) {
  const BatchData wanted = batch.object(id);
  // CLONE_PTRACE attaches the child to this controller without a stop of the parent.
  const BatchData args =
      batch.object(uapi::clone_args{.flags = flags | CLONE_PTRACE, .exit_signal = exit_signal, .set_tid_size = 1});
  batch.point(args.part(offsetof(uapi::clone_args, set_tid), 8), wanted);
  return batch.must(SYS_clone3, {args, sizeof(uapi::clone_args)});
}

}  // namespace

SyscallBatch::Call Puppet::clone_process(SyscallBatch& batch, pid_t pid, int exit_signal, uint64_t shared) {
  return clone_call(batch, shared, static_cast<uint64_t>(exit_signal), pid);
}

SyscallBatch::Call Puppet::clone_thread(SyscallBatch& batch, pid_t tid, uint64_t tables) {
  return clone_call(batch, CLONE_VM | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | tables, 0, tid);
}

void release_all(std::span<const std::unique_ptr<Puppet>> puppets) {
  for (const auto& p : puppets)
    for (Tracee& t : p->threads_)
      if (ptrace(PTRACE_SETOPTIONS, t.tid(), 0, PTRACE_O_TRACESYSGOOD) != 0)
        throw Error(Reason::TRACEE_LOST, "it cannot be released").object(t.describe()).error_number(errno);
  for (const auto& p : puppets) {
    // A stop signal sent before the detach is acted upon before the first instruction.
    if (p->stop_signal_ != 0) kill(p->pid_, p->stop_signal_);
    for (Tracee& t : p->threads_) t.detach();
  }
}

}  // namespace stasis
