// Objects of a few numbers each: through an image and back, and what a decoder must refuse.
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>

#include "base/error.h"
#include "objects/task/alt_stack.h"
#include "objects/task/child_subreaper.h"
#include "objects/task/interval_timers.h"
#include "objects/task/login_uid.h"
#include "objects/task/membarrier.h"
#include "objects/task/oom_score.h"
#include "objects/task/parent_death_signal.h"
#include "objects/task/personality.h"
#include "objects/task/refused_state.h"
#include "objects/task/resource_limits.h"
#include "objects/task/robust_list.h"
#include "objects/task/round_trip.h"
#include "objects/task/scheduling.h"
#include "objects/task/signal_actions.h"
#include "objects/task/signal_mask.h"
#include "objects/task/task_state.h"
#include "objects/task/thread_name.h"
#include "objects/task/tid_address.h"

namespace stasis {
namespace {

TEST(AltStack, GoesThroughAnImage) {
  const auto back = round_trip<AltStack>({.base = 0x7f0000, .size = 8192, .flags = SS_ONSTACK | 1u << 31});
  EXPECT_EQ(back.base, 0x7f0000u);
  EXPECT_EQ(back.size, 8192u);
  EXPECT_EQ(back.flags, SS_ONSTACK | 1u << 31);
  EXPECT_EQ(decoded<AltStack>(core_for_tests()).flags, uint32_t{SS_DISABLE});
}

TEST(AltStack, ADisabledOneNeedsNoCall) {
  const RestoreOptions options;
  const SettleView view{.options = options, .who = "x"};
  SyscallBatch batch;
  AltStack::settle({.flags = SS_DISABLE}, view, batch);
  EXPECT_TRUE(batch.empty());
  AltStack::settle({.base = 4096, .size = 8192, .flags = SS_ONSTACK}, view, batch);
  EXPECT_EQ(batch.calls(), 1u);
}

TEST(ThreadObjects, GoThroughAnImage) {
  EXPECT_EQ(round_trip<TidAddress>({.address = 0x7f12345678}).address, 0x7f12345678u);
  const auto list = round_trip<RobustListHead>({.head = 0x7fff1234, .length = 24});
  EXPECT_EQ(list.head, 0x7fff1234u);
  EXPECT_EQ(list.length, 24u);
  EXPECT_EQ(round_trip<ThreadName>({.text = "worker (7)"}).text, "worker (7)");
  EXPECT_EQ(round_trip<ParentDeathSignal>({.signal = 9}).signal, 9);
  EXPECT_FALSE(encoded<ParentDeathSignal>({}).thread_core().has_pdeath_sig());
  EXPECT_EQ(round_trip<SignalMask>({.blocked = 0x8000000000000001}).blocked, 0x8000000000000001u);
}

TEST(ThreadObjects, TakeWhatOlderImagesHaveInThePartOfTheProcess) {
  pb::core_entry core = core_for_tests();
  core.mutable_tc()->set_blk_sigset(42);
  core.mutable_tc()->set_comm("old");
  EXPECT_EQ(decoded<SignalMask>(core).blocked, 42u);
  EXPECT_EQ(decoded<ThreadName>(core).text, "old");
}

TEST(ThreadObjects, RefuseNonsense) {
  EXPECT_REASON(Reason::IMAGE_CORRUPT, round_trip<ThreadName>({.text = "sixteen letters."}));
  EXPECT_REASON(Reason::IMAGE_CORRUPT, round_trip<ParentDeathSignal>({.signal = 65}));
}

TEST(Scheduling, GoesThroughAnImage) {
  const Scheduling::State rt{.policy = SCHED_RR, .reset_on_fork = true, .nice = -5, .priority = 42};
  EXPECT_EQ(round_trip<Scheduling>(rt), rt);
  EXPECT_EQ(encoded<Scheduling>(rt).thread_core().sched_policy(), uint32_t{SCHED_RR} | SCHED_RESET_ON_FORK);
  const Scheduling::State idle{.policy = SCHED_IDLE, .nice = 19};
  EXPECT_EQ(round_trip<Scheduling>(idle), idle);
}

TEST(Scheduling, RefusesNonsense) {
  EXPECT_REASON(Reason::IMAGE_CORRUPT, round_trip<Scheduling>({.policy = 8}));
  EXPECT_REASON(Reason::IMAGE_CORRUPT, round_trip<Scheduling>({.nice = 20}));
  EXPECT_REASON(Reason::IMAGE_CORRUPT, round_trip<Scheduling>({.priority = 100}));
}

TEST(ProcessObjects, GoThroughAnImage) {
  EXPECT_EQ(round_trip<Personality>({.value = 0x40000}).value, 0x40000u);
  EXPECT_EQ(round_trip<LoginUid>({.uid = 1000}).uid, 1000u);
  EXPECT_FALSE(round_trip<LoginUid>({}).uid.has_value());
  EXPECT_EQ(round_trip<OomScore>({.adjustment = -998}).adjustment, -998);
  EXPECT_TRUE(round_trip<ChildSubreaper>({.set = true}).set);
  EXPECT_EQ(round_trip<Membarrier>({.commands = 0x14}).commands, 0x14u);
}

TEST(ProcessObjects, RefuseNonsense) {
  EXPECT_REASON(Reason::IMAGE_CORRUPT, round_trip<OomScore>({.adjustment = 1001}));
  EXPECT_REASON(Reason::IMAGE_CORRUPT, round_trip<Membarrier>({.commands = 1}));
  EXPECT_REASON(Reason::IMAGE_CORRUPT, round_trip<Personality>({.value = 0xffffffff}));
}

TEST(IntervalTimers, GoThroughAnImage) {
  IntervalTimers::State state;
  for (size_t i = 0; i < 3; ++i)
    state.timers[i] = {.interval_s = i, .interval_us = i + 10, .value_s = i + 20, .value_us = i + 30};
  const auto back = round_trip<IntervalTimers>(state);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(back.timers[i].interval_s, i);
    EXPECT_EQ(back.timers[i].interval_us, i + 10);
    EXPECT_EQ(back.timers[i].value_s, i + 20);
    EXPECT_EQ(back.timers[i].value_us, i + 30);
  }
  state.timers[1].value_us = 1'000'000;
  EXPECT_REASON(Reason::IMAGE_CORRUPT, round_trip<IntervalTimers>(state));
}

TEST(ResourceLimits, GoThroughAnImage) {
  ResourceLimits::State state;
  state.count = ResourceLimits::kLimits;
  state.limits[7] = {.soft = 1024, .hard = 4096};
  const pb::core_entry core = encoded<ResourceLimits>(state);
  EXPECT_EQ(core.tc().rlimits().rlimits_size(), 16);
  EXPECT_EQ(core.tc().rlimits().rlimits(0).cur(), ~uint64_t{0});
  const auto back = decoded<ResourceLimits>(core);
  EXPECT_EQ(back.count, state.count);
  EXPECT_EQ(back.limits, state.limits);
}

TEST(ResourceLimits, RefuseNonsense) {
  ResourceLimits::State state;
  state.count = 1;
  state.limits[0] = {.soft = 2, .hard = 1};
  EXPECT_REASON(Reason::IMAGE_CORRUPT, round_trip<ResourceLimits>(state));
  pb::core_entry core = core_for_tests();
  for (int i = 0; i < 17; ++i) core.mutable_tc()->mutable_rlimits()->add_rlimits();
  EXPECT_REASON(Reason::IMAGE_CORRUPT, decoded<ResourceLimits>(core));
}

TEST(SignalActions, GoThroughAnImageWithoutKillAndStop) {
  SignalActions::State state;
  for (int signal : {SIGHUP, SIGTERM, SIGCONT, 64})
    state.actions[static_cast<size_t>(signal - 1)] = {
        .handler = static_cast<uint64_t>(signal), .flags = 0x04000000, .restorer = 2, .mask = 3};
  const pb::core_entry core = encoded<SignalActions>(state);
  EXPECT_EQ(core.tc().sigactions_size(), 62);
  EXPECT_EQ(core.tc().sigactions(61).sigaction(), 64u);
  EXPECT_EQ(decoded<SignalActions>(core).actions, state.actions);
  pb::core_entry bad = core;
  bad.mutable_tc()->mutable_sigactions()->RemoveLast();
  EXPECT_REASON(Reason::IMAGE_CORRUPT, decoded<SignalActions>(bad));
}

TEST(TaskState, GoesThroughAnImage) {
  const TaskState::State stopped{
      .kind = TaskState::Kind::stopped, .stop_signal = SIGTSTP, .flags = 0x400040, .comm = "a b", .blocked = 7};
  const auto back = round_trip<TaskState>(stopped);
  EXPECT_EQ(back.kind, TaskState::Kind::stopped);
  EXPECT_EQ(back.stop_signal, SIGTSTP);
  EXPECT_EQ(back.flags, 0x400040u);
  EXPECT_EQ(back.comm, "a b");
  EXPECT_EQ(back.blocked, 7u);
  EXPECT_FALSE(encoded<TaskState>({}).tc().has_stop_signo());
  // A dead task has nothing else, and its message is complete all the same.
  pb::core_entry core = encoded<TaskState>(zombie_state({.comm = "gone", .exit_code = 0x0300}));
  EXPECT_TRUE(core.IsInitialized()) << core.InitializationErrorString();
  EXPECT_EQ(decoded<TaskState>(core).exit_code, 0x0300u);
  EXPECT_TRUE(decoded<TaskState>(core).dead());
}

TEST(TaskState, RefusesNonsense) {
  pb::core_entry core = encoded<TaskState>({});
  core.mutable_tc()->set_task_state(4);
  EXPECT_REASON(Reason::IMAGE_CORRUPT, decoded<TaskState>(core));
  core.mutable_tc()->set_task_state(3);
  EXPECT_EQ(decoded<TaskState>(core).stop_signal, SIGSTOP);
  core.mutable_tc()->set_stop_signo(SIGTERM);
  EXPECT_REASON(Reason::IMAGE_CORRUPT, decoded<TaskState>(core));
}

TEST(TaskState, RemembersWhetherTheStopWasCollected) {
  TaskState::State state{.kind = TaskState::Kind::stopped, .stop_signal = SIGSTOP, .stop_collected = true, .comm = "a"};
  EXPECT_TRUE(extension_round_trip<TaskState>(state).stop_collected);
  state.stop_collected = false;
  EXPECT_FALSE(encoded_extension<TaskState>(state).has_process());
  EXPECT_FALSE(extension_round_trip<TaskState>(state).stop_collected);
}

TEST(TaskState, RemembersHowTheMainThreadEnded) {
  const TaskState::State ended{.leader_status = 0x2a00, .comm = "a"};
  EXPECT_EQ(extension_round_trip<TaskState>(ended).leader_status, 0x2a00u);
  EXPECT_FALSE(extension_round_trip<TaskState>({.comm = "a"}).leader_status.has_value());
  pb::extension_task task;
  task.mutable_process()->set_leader_status(SIGSYS);
  EXPECT_REASON(Reason::IMAGE_CORRUPT, decoded_extension<TaskState>(task));
}

TEST(TaskState, RemembersTheExitSignal) {
  for (const int signal : {0, SIGUSR1, 64}) {
    const TaskState::State state{.exit_signal = signal, .comm = "a"};
    EXPECT_EQ(extension_round_trip<TaskState>(state).exit_signal, signal);
  }
  EXPECT_FALSE(encoded_extension<TaskState>({.comm = "a"}).has_process());
  EXPECT_EQ(decoded_extension<TaskState>({}).exit_signal, SIGCHLD);
  pb::extension_task task;
  task.mutable_process()->set_exit_signal(65);
  EXPECT_REASON(Reason::IMAGE_CORRUPT, decoded_extension<TaskState>(task));
}

TEST(SignalActions, RememberTheWidthOfTheCode) {
  SignalActions::State state;
  EXPECT_FALSE(round_trip<SignalActions>(state).compat);
  state.compat = true;
  EXPECT_TRUE(round_trip<SignalActions>(state).compat);
  pb::core_entry core = encoded<SignalActions>(state);
  core.mutable_tc()->mutable_sigactions(3)->set_compat_sigaction(false);
  EXPECT_REASON(Reason::IMAGE_CORRUPT, decoded<SignalActions>(core));
}

}  // namespace
}  // namespace stasis
