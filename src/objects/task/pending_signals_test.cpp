#include "objects/task/pending_signals.h"

#include <gtest/gtest.h>

#include <cstring>

#include "base/error.h"
#include "objects/task/round_trip.h"

namespace stasis {
namespace {

siginfo_t signal_info(int signal, unsigned char fill) {
  siginfo_t info;
  std::memset(&info, fill, sizeof info);
  info.si_signo = signal;
  return info;
}

TEST(PendingSignals, KeepOrderAndEveryByte) {
  const ThreadPendingSignals::State state{.queue = {signal_info(40, 1), signal_info(34, 2), signal_info(40, 3)}};
  for (const auto& back : {round_trip<ThreadPendingSignals>(state), round_trip<ProcessPendingSignals>(state)}) {
    ASSERT_EQ(back.queue.size(), 3u);
    EXPECT_EQ(std::memcmp(back.queue.data(), state.queue.data(), 3 * sizeof(siginfo_t)), 0);
  }
  EXPECT_EQ(pending_set(state), uint64_t{1} << 39 | uint64_t{1} << 33);
  EXPECT_EQ(encoded<ThreadPendingSignals>(state).thread_core().signals_p().signals(0).siginfo().size(), 128u);
}

TEST(PendingSignals, RefuseNonsense) {
  pb::core_entry core = core_for_tests();
  core.mutable_tc()->mutable_signals_s()->add_signals()->set_siginfo("short");
  EXPECT_REASON(Reason::IMAGE_CORRUPT, decoded<ProcessPendingSignals>(core));
  EXPECT_REASON(Reason::IMAGE_CORRUPT, round_trip<ThreadPendingSignals>({.queue = {signal_info(SIGKILL, 0)}}));
  EXPECT_REASON(Reason::IMAGE_CORRUPT, round_trip<ThreadPendingSignals>({.queue = {signal_info(65, 0)}}));
}

TEST(FirstHandler, IsThatOfTheSignalThatTheKernelTakesFirst) {
  const auto set = [](int signal) { return uint64_t{1} << (signal - 1); };
  SignalActions::State actions;
  const auto handler = [&](int signal) -> KernelSigaction& { return actions.actions[static_cast<size_t>(signal - 1)]; };
  for (int signal : {SIGUSR1, SIGUSR2, SIGSEGV, SIGHUP})
    handler(signal).handler = 0x1000 + static_cast<unsigned>(signal);
  handler(SIGALRM).handler = 1;  // SIG_IGN

  EXPECT_EQ(first_handler(0, 0, 0, actions), nullptr);
  EXPECT_EQ(first_handler(set(SIGUSR2), set(SIGUSR1), 0, actions), &handler(SIGUSR2)) << "its own come first";
  EXPECT_EQ(first_handler(set(SIGUSR2), set(SIGUSR1), set(SIGUSR2), actions), &handler(SIGUSR1)) << "blocked";
  EXPECT_EQ(first_handler(0, set(SIGHUP) | set(SIGSEGV), 0, actions), &handler(SIGSEGV)) << "synchronous ones first";
  EXPECT_EQ(first_handler(set(SIGALRM) | set(SIGCHLD), set(SIGUSR2), 0, actions), &handler(SIGUSR2)) << "ignored";
  EXPECT_EQ(first_handler(set(SIGTERM), set(SIGUSR2), 0, actions), nullptr) << "it ends before";
}

}  // namespace
}  // namespace stasis
