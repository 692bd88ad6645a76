#include "objects/task/pending_signals.h"

#include <sys/syscall.h>

#include <cstring>

#include "base/error.h"

namespace stasis {

namespace {

static_assert(sizeof(siginfo_t) == 128, "as the kernel transfers it");

constexpr uint64_t signal_bit(int signal) {
  return uint64_t{1} << (signal - 1);
}

// `pending` comes from /proc and saves the look into a queue that is empty, as nearly all are.
std::vector<siginfo_t> read_queue(const LookView& view, uint64_t pending, bool shared) {
  if (pending == 0) return {};
  if ((pending & signal_bit(SIGTRAP)) != 0)
    throw Error(Reason::UNSUPPORTED_STATE, "a SIGTRAP is pending, which belongs to a debugger or a breakpoint")
        .object(view.who)
        .remedy("detach the debugger and let the task handle the signal");
  return view.thread.pending_signals(shared);
}

void encode_queue(const std::vector<siginfo_t>& queue, pb::signal_queue_entry& out) {
  for (const siginfo_t& info : queue) out.add_signals()->set_siginfo(reinterpret_cast<const char*>(&info), sizeof info);
}

std::vector<siginfo_t> decode_queue(const pb::signal_queue_entry& in) {
  std::vector<siginfo_t> queue;
  queue.reserve(static_cast<size_t>(in.signals_size()));
  for (const pb::siginfo_entry& entry : in.signals()) {
    siginfo_t& info = queue.emplace_back();
    if (entry.siginfo().size() != sizeof info)
      throw Error(Reason::IMAGE_CORRUPT, "a pending signal does not have the size of a siginfo");
    std::memcpy(&info, entry.siginfo().data(), sizeof info);
    if (info.si_signo < 1 || info.si_signo > 64 || info.si_signo == SIGKILL)
      throw Error(Reason::IMAGE_CORRUPT, "a pending signal has an impossible number");
  }
  return queue;
}

}  // namespace

const KernelSigaction* first_handler(uint64_t own_pending, uint64_t shared_pending, uint64_t blocked,
                                     const SignalActions::State& actions) {
  constexpr uint64_t kIgnoredByDefault =
      signal_bit(SIGCHLD) | signal_bit(SIGURG) | signal_bit(SIGWINCH) | signal_bit(SIGCONT);
  // The order of dequeue_signal() in the kernel, in each set the synchronous ones first.
  constexpr uint64_t kSynchronous = signal_bit(SIGSEGV) | signal_bit(SIGBUS) | signal_bit(SIGILL) |
                                    signal_bit(SIGTRAP) | signal_bit(SIGFPE) | signal_bit(SIGSYS);
  for (uint64_t set : {own_pending & kSynchronous, own_pending, shared_pending & kSynchronous, shared_pending})
    for (uint64_t left = set & ~blocked; left != 0; left &= left - 1) {
      const int signal = __builtin_ctzll(left) + 1;
      const KernelSigaction& action = actions.actions[static_cast<size_t>(signal - 1)];
      if (action.handler == reinterpret_cast<uint64_t>(SIG_IGN)) continue;
      if (action.handler != reinterpret_cast<uint64_t>(SIG_DFL)) return &action;
      if ((kIgnoredByDefault & signal_bit(signal)) == 0) return nullptr;
    }
  return nullptr;
}

uint64_t pending_set(const ThreadPendingSignals::State& state) {
  uint64_t set = 0;
  for (const siginfo_t& info : state.queue) set |= signal_bit(info.si_signo);
  return set;
}

void ThreadPendingSignals::look(const LookView& view, State& state) {
  state.queue = read_queue(view, view.status.sig_pending, false);
}

void ThreadPendingSignals::encode(const State& state, pb::core_entry& core) {
  encode_queue(state.queue, *core.mutable_thread_core()->mutable_signals_p());
}

void ThreadPendingSignals::decode(const pb::core_entry& core, State& state) {
  state.queue = decode_queue(core.thread_core().signals_p());
}

void ThreadPendingSignals::settle(const State& state, const SettleView& view, SyscallBatch& batch) {
  for (const siginfo_t& info : state.queue)
    batch.must(SYS_rt_tgsigqueueinfo, {view.inner_pid, view.inner_tid, info.si_signo, batch.object(info)});
}

void ProcessPendingSignals::look(const LookView& view, State& state) {
  state.queue = read_queue(view, view.status.shared_pending, true);
}

void ProcessPendingSignals::encode(const State& state, pb::core_entry& core) {
  encode_queue(state.queue, *core.mutable_tc()->mutable_signals_s());
}

void ProcessPendingSignals::decode(const pb::core_entry& core, State& state) {
  state.queue = decode_queue(core.tc().signals_s());
}

void ProcessPendingSignals::settle(const State& state, const SettleView& view, SyscallBatch& batch) {
  for (const siginfo_t& info : state.queue)
    batch.must(SYS_rt_sigqueueinfo, {view.inner_pid, info.si_signo, batch.object(info)});
}

}  // namespace stasis
