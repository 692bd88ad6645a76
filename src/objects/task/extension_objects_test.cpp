// Objects that are kept in our own image: through it and back, what the default adds, what a decoder must refuse.
#include <gtest/gtest.h>
#include <sys/prctl.h>

#include "base/error.h"
#include "objects/task/autogroup.h"
#include "objects/task/core_dump_filter.h"
#include "objects/task/cpu_affinity.h"
#include "objects/task/deny_write_execute.h"
#include "objects/task/future_locks.h"
#include "objects/task/instruction_faults.h"
#include "objects/task/io_flusher.h"
#include "objects/task/io_priority.h"
#include "objects/task/machine_check_policy.h"
#include "objects/task/memory_merge.h"
#include "objects/task/numa_policy.h"
#include "objects/task/round_trip.h"
#include "objects/task/scheduling.h"
#include "objects/task/speculation.h"
#include "objects/task/thp_disable.h"
#include "objects/task/timer_slack.h"

namespace stasis {
namespace {

TEST(CpuAffinity, GoesThroughAnImage) {
  const NumberSet cpus = parse_number_list("1,70");
  const auto back = extension_round_trip<CpuAffinity>({.told = true, .cpus = cpus});
  EXPECT_TRUE(back.told);
  EXPECT_EQ(back.cpus, cpus);
}

TEST(CpuAffinity, AllProcessorsAreTheDefault) {
  EXPECT_FALSE(encoded_extension<CpuAffinity>({.told = true}).has_thread());
  const auto back = decoded_extension<CpuAffinity>({});
  EXPECT_TRUE(back.told);
  EXPECT_TRUE(back.cpus.empty());
}

TEST(CpuAffinity, RefusesNonsense) {
  pb::extension_task task;
  task.mutable_thread()->add_cpu_affinity(0);
  EXPECT_REASON(Reason::IMAGE_CORRUPT, decoded_extension<CpuAffinity>(task));
  for (size_t i = 0; i <= NumberSet::kMostWords; ++i) task.mutable_thread()->add_cpu_affinity(1);
  EXPECT_REASON(Reason::IMAGE_CORRUPT, decoded_extension<CpuAffinity>(task));
}

TEST(ThreadExtensions, GoThroughAnImage) {
  EXPECT_EQ(extension_round_trip<IoPriority>({.value = 2u << 13 | 3}).value, 2u << 13 | 3);
  EXPECT_EQ(extension_round_trip<TimerSlack>({.ns = 1}).ns, 1u);
  EXPECT_EQ(extension_round_trip<TimerSlack>({.ns = 0}).ns, 0u);
  using Kill = MachineCheckPolicy::Kill;
  EXPECT_EQ(extension_round_trip<MachineCheckPolicy>({.kill = Kill::late}).kill, Kill::late);
  EXPECT_EQ(extension_round_trip<MachineCheckPolicy>({.kill = Kill::early}).kill, Kill::early);
  EXPECT_EQ(extension_round_trip<IoFlusher>({.set = true}).set, true);
  const auto faults = extension_round_trip<InstructionFaults>({.tsc = true, .cpuid = true});
  EXPECT_TRUE(faults.tsc && faults.cpuid);
  const Speculation::Controls controls{PR_SPEC_FORCE_DISABLE, PR_SPEC_DISABLE, PR_SPEC_ENABLE};
  EXPECT_EQ(extension_round_trip<Speculation>({.control = controls}).control, controls);
  const auto numa =
      extension_round_trip<NumaPolicy>({.told = true, .mode = 3 | 1u << 15, .nodes = parse_number_list("0,2")});
  EXPECT_EQ(numa.mode, 3 | 1u << 15);
  EXPECT_EQ(numa.nodes, parse_number_list("0,2"));
}

TEST(ThreadExtensions, DefaultsSayNothingAndAreRestored) {
  pb::extension_task task;
  IoPriority::encode_extension({.value = 0}, task);
  TimerSlack::encode_extension({.ns = 50000}, task);
  MachineCheckPolicy::encode_extension({.kill = MachineCheckPolicy::Kill::by_system}, task);
  IoFlusher::encode_extension({.set = false}, task);
  InstructionFaults::encode_extension({}, task);
  Speculation::encode_extension({}, task);
  NumaPolicy::encode_extension({.told = true}, task);
  EXPECT_FALSE(task.has_thread());
  EXPECT_EQ(decoded_extension<IoPriority>(task).value, 0u);
  EXPECT_EQ(decoded_extension<TimerSlack>(task).ns, 50000u);
  EXPECT_EQ(decoded_extension<MachineCheckPolicy>(task).kill, MachineCheckPolicy::Kill::by_system);
  EXPECT_EQ(decoded_extension<IoFlusher>(task).set, false);
  EXPECT_TRUE(decoded_extension<NumaPolicy>(task).told);
}

TEST(ThreadExtensions, WithoutAnImageNothingIsCalled) {
  const RestoreOptions options;
  const SettleView view{.options = options, .who = "x"};
  SyscallBatch batch;
  TimerSlack::settle({}, view, batch);
  MachineCheckPolicy::settle({}, view, batch);
  IoFlusher::settle({}, view, batch);
  InstructionFaults::settle({}, view, batch);
  Speculation::arm({}, view, batch);
  NumaPolicy::settle({}, view, batch);
  MemoryMerge::settle({}, view, batch);
  DenyWriteExecute::arm({}, view, batch);
  EXPECT_TRUE(batch.empty());
}

TEST(ThreadExtensions, RefuseNonsense) {
  EXPECT_REASON(Reason::IMAGE_CORRUPT, extension_round_trip<IoPriority>({.value = 4u << 13}));
  EXPECT_REASON(Reason::IMAGE_CORRUPT, extension_round_trip<NumaPolicy>({.mode = 7}));
  EXPECT_REASON(Reason::IMAGE_CORRUPT, extension_round_trip<Speculation>({.control = {3, 0, 0}}));
  pb::extension_task task;
  task.mutable_thread()->set_machine_check(2);
  EXPECT_REASON(Reason::IMAGE_CORRUPT, decoded_extension<MachineCheckPolicy>(task));
}

TEST(NumaPolicy, NodesThatAreNotHereAreLeftOut) {
  RestoreOptions options;
  const SettleView view{.options = options, .who = "x"};
  SyscallBatch batch;
  const NumaPolicy::State elsewhere{.told = true, .mode = 2, .nodes = parse_number_list("1023")};
  EXPECT_REASON(Reason::RESTORE_CALL_FAILED, NumaPolicy::settle(elsewhere, view, batch));
  options.cpu_affinity = CpuAffinityChoice::inherit;
  NumaPolicy::settle(elsewhere, view, batch);
  EXPECT_TRUE(batch.empty());
}

TEST(ProcessExtensions, GoThroughAnImage) {
  EXPECT_EQ(extension_round_trip<MemoryMerge>({.on = true}).on, true);
  EXPECT_EQ(extension_round_trip<DenyWriteExecute>({.flags = 3}).flags, 3u);
  EXPECT_EQ(extension_round_trip<CoreDumpFilter>({.bits = 0x7f}).bits, 0x7fu);
  EXPECT_EQ(extension_round_trip<CoreDumpFilter>({.bits = 0}).bits, 0u);
  EXPECT_EQ(extension_round_trip<Autogroup>({.nice = -7}).nice, -7);
  EXPECT_TRUE(extension_round_trip<ThpDisable>({.disabled = true, .except_advised = true}).except_advised);
  EXPECT_REASON(Reason::IMAGE_CORRUPT, extension_round_trip<Autogroup>({.nice = 20}));
  EXPECT_EQ(extension_round_trip<FutureLocks>({.flags = 6}).flags, 6u);
  EXPECT_REASON(Reason::IMAGE_CORRUPT, extension_round_trip<FutureLocks>({.flags = 4}));
}

TEST(ProcessExtensions, DefaultsSayNothingAndAreRestored) {
  pb::extension_task task;
  MemoryMerge::encode_extension({.on = false}, task);
  DenyWriteExecute::encode_extension({}, task);
  CoreDumpFilter::encode_extension({.bits = 0x33}, task);
  Autogroup::encode_extension({.nice = 0}, task);
  ThpDisable::encode_extension({.disabled = true}, task);
  EXPECT_FALSE(task.has_process() || task.has_mm());
  EXPECT_EQ(decoded_extension<MemoryMerge>(task).on, false);
  EXPECT_EQ(decoded_extension<CoreDumpFilter>(task).bits, 0x33u);
  EXPECT_FALSE(decoded_extension<Autogroup>(task).nice.has_value());
}

// The part in our own image is read after that in the core.
Scheduling::State scheduling_round_trip(const Scheduling::State& in) {
  Scheduling::State out = round_trip<Scheduling>(in);
  Scheduling::decode_extension(encoded_extension<Scheduling>(in), out);
  return out;
}

TEST(SchedulingExtension, GoesThroughAnImage) {
  const Scheduling::State deadline{.policy = 6,
                                   .deadline = {.runtime_ns = 1, .deadline_ns = 2, .period_ns = 3, .flags = 6}};
  EXPECT_EQ(scheduling_round_trip(deadline), deadline);
  const Scheduling::State clamped{.nice = 3, .slice_ns = 7'000'000, .clamps = {.util_min = 10, .util_max = 20}};
  EXPECT_EQ(scheduling_round_trip(clamped), clamped);
  EXPECT_FALSE(encoded_extension<Scheduling>({.nice = 3}).has_thread());
}

TEST(SchedulingExtension, RefusesNonsense) {
  EXPECT_REASON(Reason::IMAGE_CORRUPT, scheduling_round_trip({.clamps = {.util_min = 2, .util_max = 1}}));
  EXPECT_REASON(Reason::IMAGE_CORRUPT, scheduling_round_trip({.clamps = {.util_max = 1025}}));
  EXPECT_REASON(Reason::IMAGE_CORRUPT, scheduling_round_trip({.policy = 1, .priority = 1, .slice_ns = 1}));
  EXPECT_REASON(Reason::IMAGE_CORRUPT, scheduling_round_trip({.policy = 6, .deadline = {.flags = 1}}));
  Scheduling::State state{.policy = 6};
  EXPECT_REASON(Reason::IMAGE_CORRUPT, Scheduling::decode_extension({}, state));
}

}  // namespace
}  // namespace stasis
