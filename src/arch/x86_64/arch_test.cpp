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

namespace stasis::arch {
namespace {

// Values that leave the kernel only towards a tracer (include/linux/errno.h of the kernel).
constexpr int64_t kRestartSys = -512, kRestartNoIntr = -513, kRestartNoHand = -514, kRestartBlock = -516;

Registers stopped_in_call(uint64_t number, int64_t result) {
  Registers r{};
  r.cs = kCode64;
  r.rip = 0x401000;
  r.orig_rax = number;
  r.rax = static_cast<uint64_t>(result);
  r.rdi = 11;
  return r;
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
  EXPECT_EQ(code[code.size() - 7], std::byte{0xff});
  EXPECT_EQ(code[code.size() - 6], std::byte{0x25});
  EXPECT_NE(code.back(), std::byte{0}) << "a displacement may end with zeros, which are not free";
}

TEST(Bootstrap, FitsBehindAnyVdsoImage) {
  // The tail that the kernel's own vdso leaves free in its last page is between one and two KiB.
  EXPECT_LE(bootstrap_size(2, false), 768u);
  EXPECT_EQ(bootstrap_size(3, false) - bootstrap_size(2, false), sizeof(BootstrapCall));
  // That for 32-bit code leaves 600 bytes.
  EXPECT_LE(bootstrap_size(2, true), 512u);
}

TEST(Bootstrap, HoldsItsCallsAndAnEnd) {
  const BootstrapCall calls[] = {{SYS_mmap, {1, 2, 3, 4, 5, 6}}, {SYS_munmap, {7, 8, 0, 0, 0, 0}}};
  const auto code = bootstrap_code(0x10000, SlotHead{}, calls);
  ASSERT_EQ(code.size(), bootstrap_size(2, false));
  const auto first = first_bootstrap_call(code);
  ASSERT_TRUE(first);
  EXPECT_EQ(std::memcmp(&*first, calls, sizeof *first), 0);
  const Registers r = bootstrap_registers(Registers{.cs = kCode64}, 0x10000, 2);
  EXPECT_EQ(instruction_pointer(r), 0x10000u);
  EXPECT_LT(bootstrap_reported_offset(), code.size());
  // Where the loop looks for its first call and, by the address of a slot, for its way home.
  EXPECT_EQ(std::memcmp(code.data() + (r.rbx - 0x10000), calls, sizeof calls), 0);
  uint64_t end = 0, heal = 0;
  std::memcpy(&end, code.data() + (r.rbx - 0x10000) + sizeof calls, 8);
  EXPECT_EQ(end, kEndOfTable);
  std::memcpy(&heal, code.data() + (slot_address(r) + offsetof(SlotHead, heal_code) - 0x10000), 8);
  EXPECT_LT(heal - 0x10000, code.size());
}

TEST(WayHome, OfCodeOf32BitsIsAFarPointer) {
  SlotHead head{};
  Registers own = stopped_in_call(162, kRestartBlock);
  set_way_home(head, own);
  EXPECT_EQ(head.compat_target, 0u);
  own.cs = kCode32;
  set_way_home(head, own);
  EXPECT_EQ(head.compat_target, uint64_t{0x401000 - 2} | uint64_t{kCode32} << 32);
  EXPECT_EQ(head.registers.rax, 0u) << "restart_syscall of 32-bit code";
}

TEST(CompatCalls, HaveAFormOf64Bits) {
  const auto sleep = native_form(162, true);
  ASSERT_TRUE(sleep);
  EXPECT_EQ(sleep->number, uint64_t{SYS_nanosleep});
  EXPECT_TRUE(sleep->time32);
  EXPECT_FALSE(native_form(422, true)->time32) << "futex_time64";
  EXPECT_FALSE(native_form(20, true)) << "getpid waits for nothing";
  EXPECT_EQ(native_form(162, false)->number, 162u);
}

TEST(CompatCalls, HaveArgumentsInOtherRegisters) {
  Registers r{.rbx = 0xffff'ffff'0000'0001};
  r.cs = kCode32;
  EXPECT_EQ(call_argument(r, 0), 1u);
  set_call_argument(r, 5, 6);
  EXPECT_EQ(r.rbp, 6u);
  r.cs = kCode64;
  set_call_argument(r, 0, 7);
  EXPECT_EQ(r.rdi, 7u);
}

TEST(FailedWait, OfCodeOf32BitsIsToldByArgumentsToo) {
  Registers r = stopped_in_call(117, -EINTR);  // ipc
  r.cs = kCode32;
  r.rbx = 1;  // SEMOP
  EXPECT_TRUE(restart_failed_wait(r));
  r = stopped_in_call(117, -EINTR);
  r.cs = kCode32;
  r.rbx = 11;  // MSGSND
  EXPECT_FALSE(restart_failed_wait(r));
}

TEST(Stub, IsAnElfProgramOfLessThanAPage) {
  const auto stub = stub_executable(false);
  ASSERT_GE(stub.size(), sizeof(Elf64_Ehdr) + sizeof(Elf64_Phdr));
  EXPECT_LT(stub.size(), 4096u);
  Elf64_Ehdr header;
  std::memcpy(&header, stub.data(), sizeof header);
  EXPECT_EQ(std::memcmp(header.e_ident, ELFMAG, SELFMAG), 0);
  EXPECT_EQ(header.e_phnum, 1);
  const auto narrow = stub_executable(true);
  Elf32_Ehdr header32;
  std::memcpy(&header32, narrow.data(), sizeof header32);
  EXPECT_EQ(header32.e_ident[EI_CLASS], ELFCLASS32);
  EXPECT_EQ(header32.e_phoff + header32.e_phnum * sizeof(Elf32_Phdr), header32.e_entry - 0x10000);
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
