// What a CPU folder promises: restart rules, sizes, code that fits where it is told to go.
#include <elf.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <optional>

#include "arch/arch.h"
#include "arch/compat.h"

namespace stasis::arch {
namespace {

// Values that leave the kernel only towards a tracer (include/linux/errno.h of the kernel).
constexpr int64_t kRestartSys = -512, kRestartNoIntr = -513, kRestartNoHand = -514, kRestartBlock = -516;

Registers stopped_in_call(uint64_t number, int64_t result) {
  Registers r{};
  r.rip = 0x401000;
  r.orig_rax = number;
  r.rax = static_cast<uint64_t>(result);
  r.rdi = 11;
  return r;
}

TEST(Widen, TakesTheRegistersOf32BitCode) {
  uint32_t given[17] = {};
  given[0] = 0xb0000000;  // bx
  given[6] = 0xfffffffc;  // ax: -EINTR
  given[11] = 0xffffffff;
  given[12] = 0x8049000;
  given[13] = 0x23;
  given[15] = 0xffffd000;
  const auto wide = widen_registers(std::as_bytes(std::span(given)));
  ASSERT_TRUE(wide);
  EXPECT_TRUE(is_compat(*wide));
  EXPECT_EQ(wide->rbx, 0xb0000000u);
  EXPECT_EQ(static_cast<int64_t>(wide->rax), -EINTR);
  EXPECT_EQ(static_cast<int64_t>(wide->orig_rax), -1);
  EXPECT_EQ(wide->rip, 0x8049000u);
  EXPECT_EQ(wide->rsp, 0xffffd000u);
  EXPECT_FALSE(widen_registers(std::as_bytes(std::span(given)).first(64)));
}

TEST(InterruptedCall, IsToldByResultAndCallNumber) {
  for (int64_t code : {kRestartSys, kRestartNoIntr, kRestartNoHand})
    EXPECT_EQ(interrupted_call(stopped_in_call(SYS_read, code)), Interrupted::restart);
  EXPECT_EQ(interrupted_call(stopped_in_call(SYS_nanosleep, kRestartBlock)), Interrupted::restart_block);
  EXPECT_EQ(interrupted_call_number(stopped_in_call(SYS_nanosleep, kRestartBlock)), uint64_t{SYS_nanosleep});
}

TEST(InterruptedCall, IsNoneForResultsOfFinishedCalls) {
  for (int64_t result : {0L, 5L, -long{EINTR}, -515L, -517L, -4095L})
    EXPECT_EQ(interrupted_call(stopped_in_call(SYS_read, result)), Interrupted::no) << result;
}

TEST(InterruptedCall, IsNoneOutsideOfCalls) {
  // A program may have any number in its result register.
  EXPECT_EQ(interrupted_call(stopped_in_call(~uint64_t{0}, kRestartSys)), Interrupted::no);
}

TEST(Rewind, MakesTheSameCallAgain) {
  Registers r = stopped_in_call(SYS_read, kRestartSys);
  rewind_interrupted_call(r);
  EXPECT_EQ(r.rip, 0x401000u - 2);
  EXPECT_EQ(r.rax, uint64_t{SYS_read});
  EXPECT_EQ(r.rdi, 11u) << "arguments stay";
  EXPECT_EQ(interrupted_call(r), Interrupted::no) << "nothing is pending afterwards";
}

TEST(Rewind, GoesOnWithTheRestartBlock) {
  Registers r = stopped_in_call(SYS_nanosleep, kRestartBlock);
  rewind_interrupted_call(r);
  EXPECT_EQ(r.rip, 0x401000u - 2);
  EXPECT_EQ(r.rax, uint64_t{SYS_restart_syscall});
}

TEST(Rewind, LeavesAFinishedCallAlone) {
  Registers r = stopped_in_call(SYS_read, 7);
  rewind_interrupted_call(r);
  EXPECT_EQ(r.rip, 0x401000u);
  EXPECT_EQ(r.rax, 7u);
  EXPECT_EQ(r.orig_rax, ~uint64_t{0}) << "the kernel must not look at the result as a restart code";
}

TEST(Rewind, TwiceIsOnce) {
  Registers once = stopped_in_call(SYS_read, kRestartNoIntr);
  rewind_interrupted_call(once);
  Registers twice = once;
  rewind_interrupted_call(twice);
  EXPECT_EQ(std::memcmp(&once, &twice, sizeof once), 0);
}

TEST(Rewind, ToAnotherCall) {
  Registers r = stopped_in_call(SYS_nanosleep, kRestartBlock);
  rewind_to_call(r, SYS_nanosleep);
  EXPECT_EQ(r.rip, 0x401000u - 2);
  EXPECT_EQ(r.rax, uint64_t{SYS_nanosleep});
  EXPECT_EQ(interrupted_call(r), Interrupted::no);
}

TEST(Rewind, FailingACallReportsEintr) {
  Registers r = stopped_in_call(SYS_nanosleep, kRestartBlock);
  fail_interrupted_call(r);
  EXPECT_EQ(static_cast<int64_t>(r.rax), -EINTR);
  EXPECT_EQ(r.rip, 0x401000u);
  EXPECT_EQ(interrupted_call(r), Interrupted::no);
}

TEST(BatchRegisters, KeepWhatTheLoopDoesNotUse) {
  Registers own = stopped_in_call(SYS_read, kRestartSys);
  own.rsp = 0x7ffc0000;
  own.fs_base = 0x7f0000;
  own.r13 = 13;
  const Registers r = batch_registers(own, 0x1000, 0x2000, 0x3000);
  EXPECT_EQ(instruction_pointer(r), 0x1000u);
  EXPECT_EQ(r.rsp, own.rsp);
  EXPECT_EQ(r.fs_base, own.fs_base);
  EXPECT_EQ(r.r13, 13u);
  EXPECT_EQ(interrupted_call(r), Interrupted::no) << "the kernel must not restart a call into the loop";
}

TEST(CallRegisters, StandAtTheCallWithItsArguments) {
  const uint64_t args[] = {1, 2, 3, 4, 5, 6};
  const Registers r = call_registers(Registers{}, 0x1000 + batch_reported_offset(), SYS_munmap, args);
  EXPECT_EQ(r.rax, uint64_t{SYS_munmap});
  for (int i = 0; i < 6; ++i) EXPECT_EQ(call_argument(r, i), args[i]);
  // The bytes there are the call instruction.
  const auto loop = batch_loop();
  const size_t at = instruction_pointer(r) - 0x1000;
  EXPECT_EQ(loop[at], std::byte{0x0f});
  EXPECT_EQ(loop[at + 1], std::byte{0x05});
}

// ---- code ------------------------------------------------------------------------------------------------

TEST(HealCode, HasOneSizeWhereverItIs) {
  EXPECT_EQ(heal_code(0x7000'0000'0000, 0x7000'0000'8000).size(), heal_code_size());
  EXPECT_EQ(heal_code(0x10000, 0x8000).size(), heal_code_size());
  EXPECT_LT(heal_code_size(), 256u);
}

TEST(HealCode, ReachesItsSlotRelatively) {
  // Moved together with its slot it is the same code.
  EXPECT_EQ(heal_code(0x10000, 0x20000), heal_code(0x7000'0001'0000, 0x7000'0002'0000));
  EXPECT_NE(heal_code(0x10000, 0x20000), heal_code(0x10000, 0x20008));
}

TEST(HealCode, EndsWithAJumpThatTouchesNoRegister) {
  const auto code = heal_code(0x10000, 0x20000);
  EXPECT_EQ(code[code.size() - 6], std::byte{0xff});
  EXPECT_EQ(code[code.size() - 5], std::byte{0x25});
}

TEST(Bootstrap, FitsBehindAnyVdsoImage) {
  // The tail that the kernel's own vdso leaves free in its last page is between one and two KiB.
  EXPECT_LE(bootstrap_size(2), 1024u);
  EXPECT_EQ(bootstrap_size(3) - bootstrap_size(2), sizeof(BootstrapCall));
}

TEST(Bootstrap, HoldsItsCallsAndAnEnd) {
  const BootstrapCall calls[] = {{SYS_mmap, {1, 2, 3, 4, 5, 6}}, {SYS_munmap, {7, 8, 0, 0, 0, 0}}};
  const auto code = bootstrap_code(0x10000, SlotHead{}, calls);
  ASSERT_EQ(code.size(), bootstrap_size(2));
  EXPECT_EQ(std::memcmp(code.data() + code.size() - 8 - sizeof calls, calls, sizeof calls), 0);
  uint64_t end;
  std::memcpy(&end, code.data() + code.size() - 8, 8);
  EXPECT_EQ(end, kEndOfTable);
  const Registers r = bootstrap_registers(Registers{}, 0x10000);
  EXPECT_EQ(instruction_pointer(r), 0x10000u);
  EXPECT_LT(bootstrap_reported_offset(), code.size());
}

TEST(Stub, IsAnElfProgramOfLessThanAPage) {
  const auto stub = stub_executable();
  ASSERT_GE(stub.size(), sizeof(Elf64_Ehdr) + sizeof(Elf64_Phdr));
  EXPECT_LT(stub.size(), 4096u);
  Elf64_Ehdr header;
  std::memcpy(&header, stub.data(), sizeof header);
  EXPECT_EQ(std::memcmp(header.e_ident, ELFMAG, SELFMAG), 0);
  EXPECT_EQ(header.e_phnum, 1);
}

// ---- extended state --------------------------------------------------------------------------------------

TEST(ExtendedState, HasTheSizeThatPtraceReturns) {
  const pid_t child = fork();
  if (child == 0) {
    ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
    raise(SIGSTOP);
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  std::optional<size_t> size;
  if (WIFSTOPPED(status)) {
    std::vector<std::byte> bytes(1 << 16);
    iovec io{bytes.data(), bytes.size()};
    constexpr long kNtX86Xstate = 0x202;
    if (ptrace(PTRACE_GETREGSET, child, kNtX86Xstate, &io) == 0) size = io.iov_len;
  }
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  if (!size) GTEST_SKIP() << "ptrace does not work here";
  EXPECT_EQ(extended_state_size(), *size);
}

TEST(FailedWait, IsMadeAgainByTheKernel) {
  for (long number : {SYS_epoll_wait, SYS_semop, SYS_rt_sigtimedwait, SYS_recvfrom}) {
    Registers r = stopped_in_call(static_cast<uint64_t>(number), -EINTR);
    EXPECT_TRUE(restart_failed_wait(r)) << number;
    EXPECT_EQ(interrupted_call(r), Interrupted::restart) << number;
    EXPECT_EQ(r.rip, 0x401000u);
  }
}

TEST(FailedWait, IsNotACallThatHasDoneSomething) {
  Registers r = stopped_in_call(SYS_close, -EINTR);
  EXPECT_FALSE(restart_failed_wait(r));
  r = stopped_in_call(SYS_epoll_wait, 1);
  EXPECT_FALSE(restart_failed_wait(r));
  r = stopped_in_call(~uint64_t{0}, -EINTR);
  EXPECT_FALSE(restart_failed_wait(r)) << "the EINTR of the program itself";
}

TEST(Rewind, IsTakenBackWithAResult) {
  Registers r = stopped_in_call(SYS_nanosleep, kRestartBlock);
  rewind_interrupted_call(r);
  finish_rewound_call(r, -EINTR);
  EXPECT_EQ(r.rip, 0x401000u);
  EXPECT_EQ(r.rax, static_cast<uint64_t>(-EINTR));
  EXPECT_EQ(interrupted_call(r), Interrupted::no);
}

}  // namespace
}  // namespace stasis::arch
