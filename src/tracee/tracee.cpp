#include "tracee/tracee.h"

#include <fmt/format.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <span>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "kernel/proc.h"
#include "kernel/process.h"
#include "kernel/uapi.h"

namespace stasis {

namespace {

constexpr uint64_t bit(int signal) {
  return uint64_t{1} << (signal - 1);
}

long request(unsigned what, pid_t tid, uint64_t address, const void* data) {
  // glibc's ptrace() takes an enum that lacks the newer requests; the raw call is the same for all.
  errno = 0;
  return ptrace(static_cast<__ptrace_request>(what), tid, address, data);
}

long request(unsigned what, pid_t tid, uint64_t address = 0, uint64_t data = 0) {
  return request(what, tid, address, reinterpret_cast<const void*>(data));
}

Error seize_error(pid_t tgid, pid_t tid, int error_number) {
  const std::string who = fmt::format("task {}", tid);
  if (error_number == ESRCH) return Error(Reason::NO_SUCH_TASK, "there is no such task").object(who);
  try {
    ProcDir dir = ProcDir::of_thread(tgid, tid);
    if (parse_stat(dir.read("stat")).kernel_thread())
      return Error(Reason::KERNEL_THREAD, "it is a kernel thread").object(who).remedy("name a user process");
    const ProcStatus status = parse_status(dir.read("status"));
    if (status.tracer_pid != 0)
      return Error(Reason::ALREADY_TRACED, fmt::format("it is traced by pid {}", status.tracer_pid))
          .object(fmt::format("{} ({})", who, status.name))
          .remedy("detach the debugger or tracer and try again");
  } catch (const Error&) {
    return Error(Reason::NO_SUCH_TASK, "there is no such task").object(who);
  }
  return Error(Reason::NO_PRIVILEGE, "the kernel does not allow to stop it")
      .object(who)
      .error_number(error_number)
      .remedy("run as root, or with CAP_SYS_PTRACE and CAP_CHECKPOINT_RESTORE");
}

}  // namespace

ReportSignal choose_report_signal(const SignalUse& use) {
  const uint64_t noticed = use.caught | use.blocked | use.pending;
  for (int s : {SIGURG, SIGWINCH, SIGCHLD, SIGCONT})
    // A SIGCONT would end a group stop.
    if (s != SIGCONT && (noticed & bit(s)) == 0) return {s};
  for (int s = 1; s < SIGRTMAX; ++s) {
    if (s == SIGKILL || s == SIGSTOP || s == SIGCONT || s == SIGTRAP) continue;
    if ((use.ignored & bit(s)) != 0 && (noticed & bit(s)) == 0) return {s};
  }
  return {0};
}

Tracee Tracee::seize(pid_t tgid, pid_t tid, unsigned ptrace_options) {
  const unsigned options = PTRACE_O_TRACESYSGOOD | ptrace_options;
  if (request(uapi::ptrace_seize, tid, 0, options) != 0) throw seize_error(tgid, tid, errno);
  return Tracee(tgid, tid, options);
}

Tracee Tracee::adopt(pid_t tgid, pid_t tid) {
  return Tracee(tgid, tid, 0);
}

Tracee::Tracee(Tracee&& other) noexcept {
  *this = std::move(other);
}

Tracee& Tracee::operator=(Tracee&& other) noexcept {
  if (this == &other) return *this;
  if (tid_ != 0) {
    try {
      detach();
    } catch (const Error&) {
    }
  }
  tgid_ = other.tgid_;
  tid_ = std::exchange(other.tid_, 0);
  stopped_ = other.stopped_;
  borrowed_ = other.borrowed_;
  syscall_stop_ = other.syscall_stop_;
  stepping_ = other.stepping_;
  keeps_mask_ = other.keeps_mask_;
  mask_is_own_ = other.mask_is_own_;
  options_ = other.options_;
  group_stop_signal_ = other.group_stop_signal_;
  has_own_ = other.has_own_;
  own_differs_ = other.own_differs_;
  own_ = other.own_;
  own_mask_ = other.own_mask_;
  postponed_signal_ = other.postponed_signal_;
  return *this;
}

Tracee::~Tracee() {
  if (tid_ == 0) return;
  try {
    detach();
  } catch (const Error& e) {
    log_warning("{}", e.what());
  }
}

std::string Tracee::describe() const {
  return tid_ == tgid_ ? fmt::format("pid {}", tgid_) : fmt::format("thread {} of pid {}", tid_, tgid_);
}

void Tracee::vanished(const StopStatus& status) const {
  throw Error(Reason::TASK_VANISHED, status.text()).object(describe());
}

void Tracee::interrupt() {
  if (request(uapi::ptrace_interrupt, tid_) != 0)
    throw Error(Reason::TASK_VANISHED, "it cannot be interrupted").object(describe()).error_number(errno);
}

void Tracee::continue_with(int signal) {
  stopped_ = false;
  if (request(stepping_ ? PTRACE_SYSCALL : PTRACE_CONT, tid_, 0, static_cast<uint64_t>(signal)) != 0)
    throw Error(Reason::TASK_VANISHED, "it cannot be continued").object(describe()).error_number(errno);
}

void Tracee::suspend_seccomp() {
  if (request(PTRACE_SETOPTIONS, tid_, 0, uint64_t{options_ | uapi::ptrace_o_suspend_seccomp}) == 0) {
    options_ |= uapi::ptrace_o_suspend_seccomp;
    return;
  }
  if (errno == ESRCH) throw Error(Reason::TASK_VANISHED, "its seccomp mode cannot be suspended").object(describe());
  throw Error(Reason::NO_PRIVILEGE, "its seccomp mode cannot be suspended")
      .object(describe())
      .error_number(errno)
      .remedy(errno == EINVAL
                  ? "run a kernel that has CONFIG_CHECKPOINT_RESTORE"
                  : "run with CAP_SYS_ADMIN in the initial user namespace and outside of any seccomp filter");
}

void Tracee::resume() {
  continue_with(0);
}

bool Tracee::await_stop(StopWaiter& waiter, Clock::time_point deadline, bool interruptible) {
  while (!stopped_) {
    const auto status = waiter.wait(tid_, deadline, interruptible);
    if (!status) return false;
    if (!status->stopped()) {
      const pid_t tid = std::exchange(tid_, 0);
      throw Error(Reason::TASK_VANISHED, status->text()).object(fmt::format("task {}", tid));
    }
    if (status->event_stop()) {
      stopped_ = true;
      group_stop_signal_ = status->signal() == SIGTRAP ? 0 : status->signal();
    } else {
      // A signal is on its way: let it take effect as it would have. The pending interrupt comes before the first
      // instruction of a handler.
      continue_with(status->event() == 0 ? status->signal() : 0);
    }
  }
  return true;
}

void Tracee::save_own_state() {
  own_ = current_registers();
  // A thread that is stopped by a signal sees that EINTR without us as well.
  own_differs_ = group_stop_signal_ == 0 && arch::restart_failed_wait(own_);
  if (request(uapi::ptrace_getsigmask, tid_, sizeof own_mask_, &own_mask_) != 0)
    throw Error(Reason::TASK_VANISHED, "its signal mask cannot be read").object(describe()).error_number(errno);
  has_own_ = true;
}

arch::Registers Tracee::current_registers() const {
  arch::Registers regs{};
  if (const int err = arch::read_registers(tid_, regs); err != 0)
    throw Error(Reason::TASK_VANISHED, "its registers cannot be read").object(describe()).error_number(err);
  return regs;
}

std::vector<std::byte> Tracee::extended_state() const {
  std::vector<std::byte> bytes(arch::extended_state_size());
  iovec io{bytes.data(), bytes.size()};
  if (request(uapi::ptrace_getregset, tid_, uapi::nt_x86_xstate, &io) != 0)
    throw Error(Reason::SYSTEM, "its extended registers cannot be read").object(describe()).error_number(errno);
  bytes.resize(io.iov_len);
  return bytes;
}

void Tracee::set_extended_state(std::span<const std::byte> bytes) {
  const iovec io{const_cast<std::byte*>(bytes.data()), bytes.size()};
  if (request(uapi::ptrace_setregset, tid_, uapi::nt_x86_xstate, &io) != 0)
    throw Error(Reason::CPU_LACKS_FEATURE, "its extended registers cannot be set")
        .object(describe())
        .error_number(errno)
        .remedy("restore on a CPU that has the features of the CPU of the dump");
}

std::vector<siginfo_t> Tracee::pending_signals(bool shared) const {
  constexpr int kChunk = 32;
  std::vector<siginfo_t> out;
  for (;;) {
    const size_t have = out.size();
    out.resize(have + kChunk);
    uapi::ptrace_peeksiginfo_args args{
        .off = have, .flags = shared ? uapi::ptrace_peeksiginfo_shared : 0, .nr = kChunk};
    const long n = request(uapi::ptrace_peeksiginfo, tid_, reinterpret_cast<uint64_t>(&args), out.data() + have);
    if (n < 0) throw Error(Reason::SYSTEM, "its pending signals cannot be read").object(describe()).error_number(errno);
    out.resize(have + static_cast<size_t>(n));
    if (n < kChunk) return out;
  }
}

void Tracee::load(const arch::Registers& regs) {
  if (const int err = arch::write_registers(tid_, regs); err != 0)
    throw Error(Reason::TASK_VANISHED, "its registers cannot be set").object(describe()).error_number(err);
}

void Tracee::load_mask(uint64_t mask) {
  if (request(uapi::ptrace_setsigmask, tid_, sizeof mask, &mask) != 0)
    throw Error(Reason::TASK_VANISHED, "its signal mask cannot be set").object(describe()).error_number(errno);
}

// Is there a signal that would be delivered before the first instruction?
bool Tracee::signal_is_due() const {
  for (const bool shared : {false, true})
    for (const siginfo_t& s : pending_signals(shared))
      if ((own_mask_ & bit(s.si_signo)) == 0) return true;
  return false;
}

arch::SlotHead Tracee::way_home(ReportSignal report) {
  // Once blocked they stay blocked until it is given back.
  if (!borrowed_) mask_is_own_ = keeps_mask_ && !signal_is_due();
  arch::SlotHead head{};
  arch::set_way_home(head, own_);
  head.signal_mask = own_mask_;
  head.report_call[0] = static_cast<uint64_t>(tgid_);
  head.report_call[1] = static_cast<uint64_t>(tid_);
  head.report_call[2] = static_cast<uint64_t>(report.number);
  head.mask_is_own = mask_is_own_ ? 1 : 0;
  return head;
}

void Tracee::block_all(ReportSignal report) {
  load_mask(report.stepping() ? ~uint64_t{0} : ~bit(report.number));
}

void Tracee::send_to(const arch::Registers& regs, ReportSignal report) {
  const bool was_borrowed = std::exchange(borrowed_, true);
  load(regs);
  if (!was_borrowed && !mask_is_own_) block_all(report);
}

void Tracee::start(ReportSignal report) {
  stepping_ = report.stepping();
  syscall_stop_ = false;
  continue_with(0);
}

void Tracee::await_report(StopWaiter& waiter, ReportSignal report, uint64_t reported, Clock::time_point deadline) {
  while (!await_report_or_interrupt(waiter, report, reported, deadline)) continue_with(0);
}

bool Tracee::await_report_or_interrupt(StopWaiter& waiter, ReportSignal report, uint64_t reported,
                                       Clock::time_point deadline) {
  for (;;) {
    const auto status = waiter.wait(tid_, deadline, false);
    if (!status)
      throw Error(Reason::TRACEE_LOST, "it did not finish its system calls in time")
          .object(describe())
          .remedy("see whether its cgroup is frozen or one of its file systems hangs");
    if (!status->stopped()) {
      const pid_t tid = std::exchange(tid_, 0);
      throw Error(Reason::TASK_VANISHED, status->text()).object(fmt::format("task {}", tid));
    }
    stopped_ = true;
    const bool syscall_stop = status->event() == 0 && status->signal() == (SIGTRAP | 0x80);
    if (status->event() == 0 && (report.stepping() ? syscall_stop : status->signal() == report.number) &&
        arch::instruction_pointer(current_registers()) == reported) {
      if (syscall_stop) {
        // Entry and exit stops of the report stand at the same address; the exit is the second.
        uapi::ptrace_syscall_info info{};
        request(uapi::ptrace_get_syscall_info, tid_, sizeof info, &info);
        if (info.op == uapi::ptrace_syscall_info_entry) {
          continue_with(0);
          continue;
        }
      }
      syscall_stop_ = syscall_stop;
      stepping_ = false;
      return true;
    }
    // Behind the report its signal is still to come: it must not stay pending.
    if (status->event_stop() && arch::instruction_pointer(current_registers()) != reported) return false;
    const bool signal = status->event() == 0 && !syscall_stop;
    if (signal && mask_is_own_ && status->signal() != SIGSTOP && status->signal() != report.number) {
      // Blocked now, the kernel puts it back where it came from (ptrace_signal in kernel/signal.c).
      const uint64_t flag = arch::slot_address(current_registers()) + offsetof(arch::SlotHead, mask_is_own);
      request(PTRACE_POKEDATA, tid_, flag, uint64_t{0});
      mask_is_own_ = false;
      block_all(report);
      continue_with(status->signal());
      continue;
    }
    // SIGSTOP cannot be blocked: keep it for the release. Anything else that gets through is the report signal
    // itself, sent by somebody else to a task that ignores it.
    if (signal && status->signal() == SIGSTOP) postponed_signal_ = SIGSTOP;
    continue_with(0);
  }
}

void Tracee::start_step() {
  stepping_ = true;
  continue_with(0);
}

void Tracee::await_step(StopWaiter& waiter, Clock::time_point deadline) {
  for (;;) {
    const auto status = waiter.wait(tid_, deadline, false);
    if (!status) throw Error(Reason::TRACEE_LOST, "it did not finish a system call in time").object(describe());
    if (!status->stopped()) vanished(*status);
    stopped_ = true;
    if (status->event() == 0 && status->signal() == (SIGTRAP | 0x80)) break;
    if (status->event() == 0 && status->signal() == SIGSTOP) postponed_signal_ = SIGSTOP;
    continue_with(0);
  }
  stepping_ = false;
  syscall_stop_ = true;
}

void Tracee::give_back() {
  if (!borrowed_) return;
  if (!mask_is_own_) load_mask(own_mask_);
  mask_is_own_ = false;
  arch::Registers regs = own_;
  // Released from a signal or event stop, the kernel restarts an interrupted call; from a call's exit it does not.
  if (syscall_stop_) arch::rewind_interrupted_call(regs);
  load(regs);
  borrowed_ = own_differs_ = false;
}

// A thread that was stopped, and is let go before anybody has looked at it.
void Tracee::repair_failed_wait() {
  try {
    if (!has_own_) {
      own_ = current_registers();
      own_differs_ = group_stop_signal_ == 0 && arch::restart_failed_wait(own_);
    }
    if (own_differs_) load(own_);
  } catch (const Error& e) {
    // Killed meanwhile: the detach tells.
    log_debug("{}", e.what());
  }
}

bool Tracee::stop_by(int signal, StopWaiter& waiter, Clock::time_point deadline) {
  uint64_t mask = 0;  // its own, or that of a batch
  if (request(uapi::ptrace_getsigmask, tid_, sizeof mask, &mask) != 0)
    throw Error(Reason::TASK_VANISHED, "its signal mask cannot be read").object(describe()).error_number(errno);
  load_mask(~bit(signal));
  tgkill(tgid_, tid_, signal);
  continue_with(0);
  for (;;) {
    const auto status = waiter.wait(tid_, deadline, false);
    if (!status) throw Error(Reason::TRACEE_LOST, "it did not stop by a signal in time").object(describe());
    if (!status->stopped()) vanished(*status);
    stopped_ = true;
    if (status->event_stop()) {
      group_stop_signal_ = status->signal() == SIGTRAP ? 0 : status->signal();
      load_mask(mask);
      return group_stop_signal_ != 0;
    }
    const bool arrived = status->event() == 0 && status->signal() == signal;
    // If it is ignored after all, the thread must stop again before its next instruction.
    if (arrived) interrupt();
    continue_with(arrived ? signal : 0);
  }
}

void Tracee::end_by(int signal) {
  load_mask(0);
  continue_with(signal);
  if (signal == SIGKILL) tgkill(tgid_, tid_, SIGKILL);
}

void Tracee::stop_at_exit() {
  const unsigned options = PTRACE_O_TRACESYSGOOD | uapi::ptrace_o_exitkill | PTRACE_O_TRACEEXIT;
  // Whether seccomp is suspended is not known of a thread that was attached at its birth.
  if (request(PTRACE_SETOPTIONS, tid_, 0, uint64_t{options | uapi::ptrace_o_suspend_seccomp}) != 0 &&
      request(PTRACE_SETOPTIONS, tid_, 0, uint64_t{options}) != 0)
    throw Error(Reason::TASK_VANISHED, "its end cannot be waited for").object(describe()).error_number(errno);
}

void Tracee::release_at_exit(StopWaiter& waiter, uint64_t blocked, Clock::time_point deadline) {
  const auto status = waiter.wait(tid_, deadline, false);
  if (!status || !status->stopped() || status->event() != PTRACE_EVENT_EXIT)
    throw Error(Reason::TRACEE_LOST, "it does not end").object(describe());
  load_mask(blocked);
  if (request(PTRACE_DETACH, tid_) != 0)
    throw Error(Reason::TRACEE_LOST, "it cannot be detached").object(describe()).error_number(errno);
  const pid_t tid = std::exchange(tid_, 0);
  while (!parse_stat(ProcDir::of_thread(tgid_, tid).read("stat")).zombie()) {
    if (Clock::now() > deadline)
      throw Error(Reason::TRACEE_LOST, "it does not end").object(fmt::format("task {}", tid));
    usleep(20);
  }
}

void Tracee::detach() {
  const pid_t tid = std::exchange(tid_, 0);
  if (tid == 0) return;
  tid_ = tid;
  int arrived = 0;
  if (!stopped_) {
    // Somebody else's error came while it ran: stop it first, a running thread cannot be detached.
    StopWaiter waiter;
    interrupt();
    const auto deadline = Clock::now() + std::chrono::seconds(2);
    while (!stopped_) {
      const auto status = waiter.wait(tid, deadline, false);
      if (!status || !status->stopped()) {
        tid_ = 0;
        return;
      }
      stopped_ = status->event_stop() || borrowed_;
      // Delivered as if it had come after the batch.
      if (stopped_ && mask_is_own_ && status->event() == 0 && (status->signal() & 0x80) == 0)
        arrived = status->signal();
      if (!stopped_) continue_with(status->event() == 0 ? status->signal() : 0);
    }
  }
  if (borrowed_ && has_own_)
    give_back();
  else if (!borrowed_)
    repair_failed_wait();
  if (request(PTRACE_DETACH, tid, 0, static_cast<uint64_t>(arrived)) != 0 && errno != ESRCH)
    throw Error(Reason::TRACEE_LOST, "it cannot be detached").object(describe()).error_number(errno);
  tid_ = 0;
  if (postponed_signal_ != 0) kill(tgid_, postponed_signal_);
}

}  // namespace stasis
