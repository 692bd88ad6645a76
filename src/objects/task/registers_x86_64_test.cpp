#include "objects/task/registers.h"

#include <gtest/gtest.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>

#include "base/error.h"
#include "objects/task/round_trip.h"
#include "objects/task/timed_call.h"
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

CpuRegisters::State saved_state(const arch::Registers& own, std::optional<uint64_t> waited_ns = {}) {
  CpuRegisters::State state;
  state.extended.resize(XsaveLayout::of_this_cpu().bytes);
  save_registers(own, getpid(), waited_ns, state);
  return state;
}
arch::Registers registers_to_save(const arch::Registers& own) {
  return saved_state(own).general;
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
  EXPECT_REASON(Reason::IMAGE_CORRUPT, decoded<CpuRegisters>(bad));  // with the code segment of 64-bit code
  bad = good;
  bad.mutable_thread_info()->mutable_gpregs()->set_fs_base(~uint64_t{0});
  EXPECT_REASON(Reason::IMAGE_CORRUPT, decoded<CpuRegisters>(bad));
  bad = good;
  bad.clear_thread_info();
  EXPECT_REASON(Reason::IMAGE_CORRUPT, decoded<CpuRegisters>(bad));
}

TEST(Registers, Of32BitCodeSayWhichCallWasInterrupted) {
  arch::Registers own = stopped_in(168, -516);  // poll
  own.cs = 0x23;
  own.rdx = 5000;
  const CpuRegisters::State state = saved_state(own);
  EXPECT_EQ(state.general.rax, 0u) << "restart_syscall of 32-bit code";
  const auto back = round_trip<CpuRegisters>(state);
  EXPECT_EQ(back.general.cs, 0x23u);
  EXPECT_TRUE(runs_compat_code(encoded<CpuRegisters>(state)));
  const auto sleep = pending_sleep(back);
  ASSERT_TRUE(sleep);
  EXPECT_TRUE(sleep->compat && sleep->known);
  EXPECT_EQ(sleep->number, 168u);
  EXPECT_EQ(sleep->args[2], 5000u);
  own.rax = 0;
  own.orig_rax = ~uint64_t{0};
  EXPECT_FALSE(pending_sleep(saved_state(own))) << "a result of 0 is no call that begins again";
}

TEST(Registers, RewindAnInterruptedCall) {
  const auto saved = registers_to_save(stopped_in(SYS_read, -512));
  EXPECT_EQ(saved.rip, 0x401000u);
  EXPECT_EQ(saved.rax, uint64_t{SYS_read});
  EXPECT_FALSE(pending_sleep({.general = saved, .extended = {}, .wait_left_ns = {}}));
}

TEST(Registers, KeepAFinishedCall) {
  const auto saved = registers_to_save(stopped_in(SYS_read, 17));
  EXPECT_EQ(saved.rip, 0x401002u);
  EXPECT_EQ(saved.rax, 17u);
  EXPECT_EQ(saved.orig_rax, ~uint64_t{0});
}

TEST(Registers, RememberASleep) {
  const auto saved = registers_to_save(stopped_in(SYS_nanosleep, -516));
  EXPECT_EQ(saved.rip, 0x401000u);
  EXPECT_EQ(saved.rax, uint64_t{SYS_restart_syscall});
  const auto sleep = pending_sleep({.general = saved, .extended = {}, .wait_left_ns = {}});
  ASSERT_TRUE(sleep);
  EXPECT_TRUE(sleep->known);
  EXPECT_EQ(sleep->number, uint64_t{SYS_nanosleep});
  EXPECT_EQ(sleep->args[0], 0x1111u);
  EXPECT_EQ(sleep->args[1], 0x2222u);
}

TEST(Registers, StartACallWithAbsoluteTimeoutAnew) {
  auto own = stopped_in(SYS_futex, -516);
  own.rsi = FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME;
  auto saved = registers_to_save(own);
  EXPECT_EQ(saved.rax, uint64_t{SYS_futex});
  EXPECT_FALSE(pending_sleep({.general = saved, .extended = {}, .wait_left_ns = {}}));
  own.rsi = FUTEX_WAIT | FUTEX_PRIVATE_FLAG;
  saved = registers_to_save(own);
  EXPECT_EQ(saved.rax, uint64_t{SYS_restart_syscall});
  EXPECT_EQ(saved.orig_rax, uint64_t{SYS_futex});
}

TEST(Registers, FindTheCallOfASecondInterruptionInTheCode) {
  const unsigned char code[] = {0x90, 0xb8, SYS_nanosleep, 0, 0, 0, 0x0f, 0x05};
  auto own = stopped_in(SYS_restart_syscall, -516);
  own.rip = reinterpret_cast<uint64_t>(code + sizeof code);
  const auto sleep = pending_sleep({.general = registers_to_save(own), .extended = {}, .wait_left_ns = {}});
  ASSERT_TRUE(sleep);
  EXPECT_TRUE(sleep->known);
  EXPECT_EQ(sleep->number, uint64_t{SYS_nanosleep});

  const unsigned char other[] = {0x90, 0xb8, SYS_read, 0, 0, 0, 0x0f, 0x05};
  own.rip = reinterpret_cast<uint64_t>(other + sizeof other);
  const auto unknown = pending_sleep({.general = registers_to_save(own), .extended = {}, .wait_left_ns = {}});
  ASSERT_TRUE(unknown);
  EXPECT_FALSE(unknown->known);
}

TEST(Registers, CountWhatIsLeftOfALimit) {
  constexpr uint64_t kMillisecond_ns = 1'000'000;
  auto own = stopped_in(SYS_poll, -516);
  own.rdx = 500;
  EXPECT_EQ(saved_state(own, 200 * kMillisecond_ns).wait_left_ns, 300 * kMillisecond_ns);
  EXPECT_EQ(saved_state(own, 700 * kMillisecond_ns).wait_left_ns, 0u);
  EXPECT_FALSE(saved_state(own).wait_left_ns) << "nobody knows how long it waited";
  own.rdx = static_cast<uint64_t>(-1);
  EXPECT_FALSE(saved_state(own, 1).wait_left_ns) << "it has no limit";

  const timespec limit{.tv_sec = 2, .tv_nsec = 1};
  own = stopped_in(SYS_futex, -516);
  own.rsi = FUTEX_WAIT | FUTEX_PRIVATE_FLAG;
  own.r10 = reinterpret_cast<uint64_t>(&limit);
  const auto state = saved_state(own, 1);
  EXPECT_EQ(state.wait_left_ns, 2000 * kMillisecond_ns);
  EXPECT_EQ(pending_sleep(state)->left_ns, state.wait_left_ns);
  own.r10 = 8;
  EXPECT_FALSE(saved_state(own, 1).wait_left_ns) << "the limit cannot be read";
}

TEST(Registers, KeepWhatAnImageOfOthersHasNoPlaceFor) {
  auto own = stopped_in(SYS_poll, -516);
  own.rdx = 500;
  auto back = extension_round_trip<CpuRegisters>(saved_state(own, 1'000'000));
  EXPECT_EQ(back.wait_left_ns, 499'000'000u);
  back = extension_round_trip<CpuRegisters>(saved_state(stopped_in(SYS_pause, -514)));
  EXPECT_EQ(back.restart_code, 514u);
  EXPECT_FALSE(back.wait_left_ns);
  pb::extension_task bad;
  bad.mutable_thread()->set_restart_code(516);
  CpuRegisters::State state;
  EXPECT_REASON(Reason::IMAGE_CORRUPT, CpuRegisters::decode_extension(bad, state));
}

TEST(Registers, ReportEintrIfAHandlerRunsFirst) {
  struct {
    long number;
    int64_t result;
    bool fails, fails_with_restart;
  } const cases[] = {{SYS_read, -512, true, false},
                     {SYS_futex, -513, false, false},
                     {SYS_pause, -514, true, true},
                     {SYS_nanosleep, -516, true, true}};
  for (const auto& c : cases)
    for (const bool restarts : {false, true}) {
      CpuRegisters::State state = saved_state(stopped_in(c.number, c.result));
      interrupt_by_handler(state, restarts);
      const bool failed = state.general.rip == 0x401002 && state.general.rax == static_cast<uint64_t>(-EINTR);
      EXPECT_EQ(failed, restarts ? c.fails_with_restart : c.fails) << c.number;
    }
}

TEST(ShortenedWait, HasASmallerNumber) {
  auto regs = stopped_in(SYS_epoll_wait, -514);
  regs.r10 = 500;
  shorten_wait(regs, 1'000'001, getpid());
  EXPECT_EQ(regs.r10, 2u) << "never too short";
  shorten_wait(regs, 0, getpid());
  EXPECT_EQ(regs.r10, 0u);
}

TEST(ShortenedWait, HasItsLimitBehindWhatTheCallGivesBack) {
  timespec limit{.tv_sec = 2, .tv_nsec = 0};
  siginfo_t info{};
  auto regs = stopped_in(SYS_rt_sigtimedwait, -514);
  regs.rsi = reinterpret_cast<uint64_t>(&info);
  regs.rdx = reinterpret_cast<uint64_t>(&limit);
  shorten_wait(regs, 1'500'000'000, getpid());
  const auto* left = reinterpret_cast<const timespec*>(regs.rdx);
  ASSERT_EQ(reinterpret_cast<const char*>(left + 1), reinterpret_cast<const char*>(&info + 1));
  EXPECT_EQ(left->tv_sec, 1);
  EXPECT_EQ(left->tv_nsec, 500'000'000);
  EXPECT_EQ(limit.tv_sec, 2) << "the caller's own";

  regs.rsi = 0;
  regs.rdx = reinterpret_cast<uint64_t>(&limit);
  shorten_wait(regs, 1, getpid());
  EXPECT_EQ(regs.rdx, reinterpret_cast<uint64_t>(&limit)) << "no room: the whole limit again";
}

}  // namespace
}  // namespace stasis
