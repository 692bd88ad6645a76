// One seized thread.
#pragma once

#include <signal.h>
#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "arch/arch.h"
#include "tracee/stop.h"

namespace stasis {

// How a thread tells that its table has run: by a signal it ignores anyway, so that nothing happens if no controller
// takes it; or, if every such signal has a handler, by being stepped from call to call (`number` 0).
struct ReportSignal {
  int number = 0;
  bool stepping() const { return number == 0; }
};

// Signal state of a whole process, for the choice of the report signal; masks have bit n-1 for signal n.
struct SignalUse {
  uint64_t ignored = 0;  // SIG_IGN
  uint64_t caught = 0;
  uint64_t blocked = 0;  // by any thread
  uint64_t pending = 0;  // shared or of any thread
};
// A signal whose loss could be noticed is never chosen: not caught, not pending, and blocked by no thread (a blocked
// signal that is ignored by default may be waited for with sigwait or a signalfd).
ReportSignal choose_report_signal(const SignalUse& use);

// A thread under PTRACE_SEIZE. While it is stopped its own registers and signal mask are kept here; the destructor puts
// them back and detaches. Owned by the thread that seized it.
class Tracee {
 public:
  // Seizes without stopping. `ptrace_options` is added to what is always set. Throws NO_SUCH_TASK (ESRCH: it is gone),
  // ALREADY_TRACED, KERNEL_THREAD, NO_PRIVILEGE.
  static Tracee seize(pid_t tgid, pid_t tid, unsigned ptrace_options = 0);
  // A thread that the kernel attached by itself (CLONE_PTRACE), with its parent's options.
  static Tracee adopt(pid_t tgid, pid_t tid);

  Tracee(Tracee&& other) noexcept;
  Tracee& operator=(Tracee&& other) noexcept;
  ~Tracee();

  pid_t tgid() const { return tgid_; }
  pid_t tid() const { return tid_; }
  std::string describe() const;

  // Asks for a stop; await_stop() sees it. Signals that arrive first are delivered as they would have been.
  void interrupt();
  // False when the deadline passed first (a vfork parent does not stop). Throws TASK_VANISHED when it ended.
  // `interruptible`: as in StopWaiter::wait().
  bool await_stop(StopWaiter& waiter, Clock::time_point deadline, bool interruptible = true);
  bool stopped() const { return stopped_; }
  // The signal that had stopped the whole process (SIGSTOP, SIGTSTP ...) when it was seized; 0 if it ran.
  int group_stop_signal() const { return group_stop_signal_; }
  // Takes the seccomp mode of a stopped thread out of force for as long as it is traced; threads and children that it
  // clones with CLONE_PTRACE are born so. Throws NO_PRIVILEGE.
  void suspend_seccomp();
  // Its signal mask is not touched while it is borrowed, so that it comes home without any call when the controller
  // dies: for a thread whose filters refuse those calls. A signal that arrives in a batch stays pending.
  void keep_mask() { keeps_mask_ = true; }
  bool keeps_mask() const { return keeps_mask_; }
  // Lets a stopped thread run on in its own code (for healing threads of a dead controller).
  void resume();

  // Reads registers and signal mask of the stopped thread; they are put back at release. A wait that has failed with
  // EINTR because of this stop alone is to go on (arch::restart_failed_wait()).
  void save_own_state();
  const arch::Registers& own_registers() const { return own_; }
  uint64_t own_signal_mask() const { return own_mask_; }
  // What the thread is to be released with instead.
  void set_own_registers(const arch::Registers& regs) { own_ = regs; }
  void set_own_signal_mask(uint64_t mask) { own_mask_ = mask; }

  std::vector<std::byte> extended_state() const;
  void set_extended_state(std::span<const std::byte> bytes);
  // Pending signals, not consumed: of the whole process, or of this thread.
  std::vector<siginfo_t> pending_signals(bool shared) const;

  // The part of a slot that takes it home when the controller dies; to be written before send_to().
  arch::SlotHead way_home(ReportSignal report);
  // Points the stopped thread elsewhere (registers first, then the mask: a controller that dies between leaves no
  // thread with everything blocked, O-67). Only the report signal stays unblocked.
  void send_to(const arch::Registers& regs, ReportSignal report);
  // Continues it until it stops right behind its report, at `reported`. Throws TASK_VANISHED, TRACEE_LOST.
  void start(ReportSignal report);
  void await_report(StopWaiter& waiter, ReportSignal report, uint64_t reported, Clock::time_point deadline);
  // The same for a thread that was told to interrupt(): false if it stands in front of its report.
  bool await_report_or_interrupt(StopWaiter& waiter, ReportSignal report, uint64_t reported,
                                 Clock::time_point deadline);
  arch::Registers current_registers() const;
  // Runs the thread to its next system call stop: at the entry of a call, then at the exit.
  void start_step();
  void await_step(StopWaiter& waiter, Clock::time_point deadline);
  // Gives registers and mask back; the thread stays stopped (mask first, then registers, O-67).
  void give_back();
  bool borrowed() const { return borrowed_; }

  // Stops the process as by a signal, whose handler is the default one (as in a stub); this is its only thread. It can
  // run batches as before, and is stopped when it is let go. False if the signal has no such effect: that of a terminal
  // in an orphaned process group.
  bool stop_by(int signal, StopWaiter& waiter, Clock::time_point deadline);
  // Continues a thread that stands behind its report with a deadly signal, as if that had arrived.
  void end_by(int signal);
  // A thread of a puppet that will call exit: stops it on its way out, then lets it go and waits until it is a zombie.
  // Attached, the parent could not wait for its process; let go before, the call could meet a seccomp filter.
  void stop_at_exit();
  void release_at_exit(StopWaiter& waiter, uint64_t blocked, Clock::time_point deadline);
  // Lets it go: running, or stopped by `signal` as a detaching stop.
  void detach();
  // The tracee is dead or handed over: forget it.
  void forget() { tid_ = 0; }

 private:
  Tracee(pid_t tgid, pid_t tid, unsigned options) : tgid_(tgid), tid_(tid), options_(options) {}
  void load(const arch::Registers& regs);
  void repair_failed_wait();
  void load_mask(uint64_t mask);
  void block_all(ReportSignal report);
  bool signal_is_due() const;
  void continue_with(int signal);
  [[noreturn]] void vanished(const StopStatus& status) const;

  pid_t tgid_ = 0, tid_ = 0;
  bool stopped_ = false;
  bool borrowed_ = false;      // registers point into a batch
  bool syscall_stop_ = false;  // stopped at a system call's exit: the kernel restarts nothing when it is released
  bool stepping_ = false;
  int group_stop_signal_ = 0;
  bool keeps_mask_ = false;
  bool mask_is_own_ = false;  // borrowed, with its own signal mask
  unsigned options_ = 0;
  bool has_own_ = false;
  bool own_differs_ = false;  // from what the kernel holds: to be loaded, even if nothing was run
  arch::Registers own_{};
  uint64_t own_mask_ = 0;
  // A stop signal met in the middle of a batch: sent again at release, to the process, as nearly all are.
  int postponed_signal_ = 0;
};

}  // namespace stasis
