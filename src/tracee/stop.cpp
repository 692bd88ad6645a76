#include "tracee/stop.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "base/interrupt.h"

namespace stasis {

namespace {

constexpr unsigned long kSigchldBit = 1ul << (SIGCHLD - 1);

}  // namespace

bool StopStatus::exited() const {
  return WIFEXITED(raw) || WIFSIGNALED(raw);
}
bool StopStatus::stopped() const {
  return WIFSTOPPED(raw);
}
int StopStatus::signal() const {
  return WSTOPSIG(raw);
}
int StopStatus::event() const {
  return raw >> 16;
}
bool StopStatus::event_stop() const {
  return stopped() && event() == PTRACE_EVENT_STOP;
}

std::string StopStatus::text() const {
  if (WIFEXITED(raw)) return fmt::format("exited with status {}", WEXITSTATUS(raw));
  if (WIFSIGNALED(raw)) return fmt::format("killed by SIG{}", sigabbrev_np(WTERMSIG(raw)));
  return fmt::format("stopped with status {:#x}", raw);
}

StopWaiter::StopWaiter() {
  syscall(SYS_rt_sigprocmask, SIG_BLOCK, &kSigchldBit, &old_mask_, sizeof old_mask_);
}

StopWaiter::~StopWaiter() {
  syscall(SYS_rt_sigprocmask, SIG_SETMASK, &old_mask_, nullptr, sizeof old_mask_);
}

std::optional<StopStatus> StopWaiter::poll(pid_t tid) {
  StopStatus status;
  const pid_t got = waitpid(tid, &status.raw, __WALL | WNOHANG);
  if (got == tid) return status;
  if (got < 0)
    throw Error(Reason::TASK_VANISHED, "the task is not under control any more")
        .object(fmt::format("task {}", tid))
        .error_number(errno);
  return std::nullopt;
}

std::optional<StopStatus> StopWaiter::wait(pid_t tid, Clock::time_point deadline, bool interruptible) {
  for (;;) {
    if (auto status = poll(tid)) return status;
    if (interruptible) check_interrupted();
    const auto left = deadline - Clock::now();
    if (left <= Clock::duration::zero()) return std::nullopt;
    // A stop raises SIGCHLD. One that came since the poll is pending and ends the wait at once; at most 100 ms are
    // slept so that an interruption by a signal just before the call is not missed.
    const auto slice = std::min<Clock::duration>(left, std::chrono::milliseconds(100));
    const timespec ts{
        .tv_sec = 0, .tv_nsec = static_cast<long>(std::chrono::duration_cast<std::chrono::nanoseconds>(slice).count())};
    syscall(SYS_rt_sigtimedwait, &kSigchldBit, nullptr, &ts, sizeof kSigchldBit);
  }
}

}  // namespace stasis
