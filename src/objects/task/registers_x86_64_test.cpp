#include "objects/task/registers.h"

#include <gtest/gtest.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/error.h"
#include "objects/task/round_trip.h"
#include "objects/task/xsave_x86_64.h"

namespace stasis {
namespace {

arch::Registers stopped_in(long number, int64_t result) {
  arch::Registers regs{};
  regs.rip = 0x401002;
  regs.cs = 0x33;
  regs.ss = 0x2b;
  regs.orig_rax = static_cast<uint64_t>(number);
  regs.rax = static_cast<uint64_t>(result);
  regs.rdi = 0x1111;
  regs.rsi = 0x2222;
  return regs;
}

TEST(Registers, GoThroughAnImage) {
  CpuRegisters::State state;
  auto* words = reinterpret_cast<unsigned long long*>(&state.general);
  for (size_t i = 0; i < sizeof state.general / 8; ++i) words[i] = 0x1000 + i;
  state.general.cs = 0x33;
  state.extended.resize(XsaveLayout::of_this_cpu().bytes);
  const pb::core_entry core = encoded<CpuRegisters>(state);
  EXPECT_EQ(core.mtype(), pb::core_entry::X86_64);
  EXPECT_EQ(core.thread_info().gpregs().mode(), pb::NATIVE);
  const auto back = decoded<CpuRegisters>(core);
  EXPECT_EQ(std::memcmp(&back.general, &state.general, sizeof state.general), 0);
}

TEST(Registers, RefuseForeignImages) {
  CpuRegisters::State state;
  state.general.cs = 0x33;
  state.extended.resize(XsaveLayout::of_this_cpu().bytes);
  const pb::core_entry good = encoded<CpuRegisters>(state);
  pb::core_entry bad = good;
  bad.set_mtype(pb::core_entry::AARCH64);
  EXPECT_REASON(Reason::IMAGE_ARCH, decoded<CpuRegisters>(bad));
  bad = good;
  bad.mutable_thread_info()->mutable_gpregs()->set_mode(pb::COMPAT);
  EXPECT_REASON(Reason::IMAGE_UNSUPPORTED, decoded<CpuRegisters>(bad));
  bad = good;
  bad.mutable_thread_info()->mutable_gpregs()->set_fs_base(~uint64_t{0});
  EXPECT_REASON(Reason::IMAGE_CORRUPT, decoded<CpuRegisters>(bad));
  bad = good;
  bad.clear_thread_info();
  EXPECT_REASON(Reason::IMAGE_CORRUPT, decoded<CpuRegisters>(bad));
}

TEST(Registers, RewindAnInterruptedCall) {
  const auto saved = registers_to_save(stopped_in(SYS_read, -512), getpid());
  EXPECT_EQ(saved.rip, 0x401000u);
  EXPECT_EQ(saved.rax, uint64_t{SYS_read});
  EXPECT_FALSE(pending_sleep({.general = saved, .extended = {}}));
}

TEST(Registers, KeepAFinishedCall) {
  const auto saved = registers_to_save(stopped_in(SYS_read, 17), getpid());
  EXPECT_EQ(saved.rip, 0x401002u);
  EXPECT_EQ(saved.rax, 17u);
  EXPECT_EQ(saved.orig_rax, ~uint64_t{0});
}

TEST(Registers, RememberASleep) {
  const auto saved = registers_to_save(stopped_in(SYS_nanosleep, -516), getpid());
  EXPECT_EQ(saved.rip, 0x401000u);
  EXPECT_EQ(saved.rax, uint64_t{SYS_restart_syscall});
  const auto sleep = pending_sleep({.general = saved, .extended = {}});
  ASSERT_TRUE(sleep);
  EXPECT_TRUE(sleep->known);
  EXPECT_EQ(sleep->number, uint64_t{SYS_nanosleep});
  EXPECT_EQ(sleep->args[0], 0x1111u);
  EXPECT_EQ(sleep->args[1], 0x2222u);
}

TEST(Registers, StartACallWithAbsoluteTimeoutAnew) {
  auto own = stopped_in(SYS_futex, -516);
  own.rsi = FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME;
  auto saved = registers_to_save(own, getpid());
  EXPECT_EQ(saved.rax, uint64_t{SYS_futex});
  EXPECT_FALSE(pending_sleep({.general = saved, .extended = {}}));
  own.rsi = FUTEX_WAIT | FUTEX_PRIVATE_FLAG;
  saved = registers_to_save(own, getpid());
  EXPECT_EQ(saved.rax, uint64_t{SYS_restart_syscall});
  EXPECT_EQ(saved.orig_rax, uint64_t{SYS_futex});
}

TEST(Registers, FindTheCallOfASecondInterruptionInTheCode) {
  const unsigned char code[] = {0x90, 0xb8, SYS_nanosleep, 0, 0, 0, 0x0f, 0x05};
  auto own = stopped_in(SYS_restart_syscall, -516);
  own.rip = reinterpret_cast<uint64_t>(code + sizeof code);
  const auto sleep = pending_sleep({.general = registers_to_save(own, getpid()), .extended = {}});
  ASSERT_TRUE(sleep);
  EXPECT_TRUE(sleep->known);
  EXPECT_EQ(sleep->number, uint64_t{SYS_nanosleep});

  const unsigned char other[] = {0x90, 0xb8, SYS_read, 0, 0, 0, 0x0f, 0x05};
  own.rip = reinterpret_cast<uint64_t>(other + sizeof other);
  const auto unknown = pending_sleep({.general = registers_to_save(own, getpid()), .extended = {}});
  ASSERT_TRUE(unknown);
  EXPECT_FALSE(unknown->known);
}

}  // namespace
}  // namespace stasis
