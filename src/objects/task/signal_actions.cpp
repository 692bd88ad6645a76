#include "objects/task/signal_actions.h"

#include <signal.h>
#include <sys/syscall.h>

#include "base/error.h"
#include "objects/task/own_status.h"

namespace stasis {

namespace {

constexpr size_t kMaskBytes = 8;

// As 32-bit code gives it (include/linux/compat.h).
struct CompatSigaction {
  explicit CompatSigaction(const KernelSigaction& a)
      : handler(static_cast<uint32_t>(a.handler)),
        flags(static_cast<uint32_t>(a.flags)),
        restorer(static_cast<uint32_t>(a.restorer)),
        mask{static_cast<uint32_t>(a.mask), static_cast<uint32_t>(a.mask >> 32)} {}
  uint32_t handler, flags, restorer, mask[2];
};

// Calls visit(signal, index in State) for the signals that can have a handler.
template <class Visit>
void for_each_signal(Visit visit) {
  for (int signal = 1; signal <= SignalActions::kSignals; ++signal)
    if (signal != SIGKILL && signal != SIGSTOP) visit(signal, static_cast<size_t>(signal - 1));
}

}  // namespace

void SignalActions::ask(const LookView& view, SyscallBatch& batch, Ask& ask, State& state) {
  state.compat = view.compat;
  // All of them: flags and mask of a signal without a handler count as well (SA_NOCLDWAIT).
  ask.actions = batch.space(sizeof state.actions);
  for_each_signal([&](int signal, size_t i) {
    const BatchData one = ask.actions.part(i * sizeof(KernelSigaction), sizeof(KernelSigaction));
    batch.must(SYS_rt_sigaction, {signal, nullptr, one, kMaskBytes});
  });
}

void SignalActions::answer(const SyscallBatch& batch, const Ask& ask, State& state) {
  state.actions = batch.value<decltype(state.actions)>(ask.actions);
}

void SignalActions::encode(const State& state, pb::core_entry& core) {
  for_each_signal([&](int, size_t i) {
    const KernelSigaction& action = state.actions[i];
    pb::sa_entry& out = *core.mutable_tc()->add_sigactions();
    out.set_sigaction(action.handler);
    out.set_flags(action.flags);
    out.set_restorer(action.restorer);
    out.set_mask(action.mask);
    out.set_compat_sigaction(state.compat);
  });
}

void SignalActions::decode(const pb::core_entry& core, State& state) {
  const auto& in = core.tc().sigactions();
  if (in.size() != kSignals - 2)
    throw Error(Reason::IMAGE_CORRUPT, "the core image does not hold one handler for each signal");
  state.compat = in[0].compat_sigaction();
  int next = 0;
  for_each_signal([&](int, size_t i) {
    const pb::sa_entry& entry = in[next++];
    if (entry.compat_sigaction() != in[0].compat_sigaction())
      throw Error(Reason::IMAGE_CORRUPT, "its signal handlers are of two widths");
    state.actions[i] = {
        .handler = entry.sigaction(), .flags = entry.flags(), .restorer = entry.restorer(), .mask = entry.mask()};
  });
}

void SignalActions::settle(const State& state, const SettleView&, SyscallBatch& batch) {
  // A new task handles signals by default, but exec keeps what this program was started to ignore (nohup).
  const uint64_t inherited = own_status().sig_ignored;
  for_each_signal([&](int signal, size_t i) {
    if (state.actions[i] == KernelSigaction{} && (inherited & (uint64_t{1} << i)) == 0) return;
    // The kernel notes by which kind of call a handler was set: it decides the frame on the handler's stack.
    if (state.compat)
      batch.must(arch::kCompatRtSigaction,
                 {signal, batch.object(CompatSigaction(state.actions[i])), nullptr, kMaskBytes});
    else
      batch.must(SYS_rt_sigaction, {signal, batch.object(state.actions[i]), nullptr, kMaskBytes});
  });
}

}  // namespace stasis
