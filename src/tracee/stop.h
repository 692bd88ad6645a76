// Waiting for tracees, with a limit in time, without waitpid(-1) (which walks all tracees: 21 us each at a thousand).
#pragma once

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>

namespace stasis {

using Clock = std::chrono::steady_clock;

// What waitpid(2) told of a tracee.
struct StopStatus {
  int raw = 0;

  bool exited() const;  // normally or by a signal
  bool stopped() const;
  int signal() const;        // WSTOPSIG: the signal of a signal or group stop
  int event() const;         // PTRACE_EVENT_*, 0 for a signal stop
  bool event_stop() const;   // PTRACE_EVENT_STOP: interrupted, group stop, or a new tracee
  std::string text() const;  // for messages
};

// While an instance lives, SIGCHLD is blocked in this thread so that waits can have a limit (sigtimedwait(2)).
// One per tracing thread; tracees belong to the thread that seized them.
class StopWaiter {
 public:
  StopWaiter();
  ~StopWaiter();
  StopWaiter(const StopWaiter&) = delete;
  StopWaiter& operator=(const StopWaiter&) = delete;

  // The next status of the tracee `tid`; empty when the deadline passed first. Throws TASK_VANISHED if it is not
  // a tracee (any more), INTERRUPTED if the run is being interrupted and `interruptible`.
  std::optional<StopStatus> wait(pid_t tid, Clock::time_point deadline, bool interruptible = true);
  // Only if it is there already.
  std::optional<StopStatus> poll(pid_t tid);

 private:
  unsigned long old_mask_ = 0;
};

}  // namespace stasis
