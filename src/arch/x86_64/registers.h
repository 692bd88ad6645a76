// x86-64: the general registers as PTRACE_GETREGS transfers them, under names all CPUs share.
#pragma once

#include <sys/user.h>

#include <cstdint>

namespace stasis::arch {

using Registers = user_regs_struct;
static_assert(sizeof(Registers) == 216);

inline uint64_t instruction_pointer(const Registers& r) {
  return r.rip;
}
inline uint64_t stack_pointer(const Registers& r) {
  return r.rsp;
}
inline void set_instruction_pointer(Registers& r, uint64_t v) {
  r.rip = v;
}

// Code segments of the kernel's own table (arch/x86/include/asm/segment.h).
inline constexpr uint64_t kCode64 = 0x33, kCode32 = 0x23;

// True for a thread that runs 32-bit code: its system calls have numbers, argument registers and structures of their
// own.
inline bool is_compat(const Registers& r) {
  return r.cs != kCode64;
}

// System calls of 32-bit code whose effect no 64-bit one has (arch/x86/entry/syscalls/syscall_32.tbl), for a batch.
inline constexpr uint64_t kCompatCall = uint64_t{1} << 32;
inline constexpr long kCompatRtSigaction = kCompatCall | 174, kCompatSetThreadArea = kCompatCall | 243,
                      kCompatSetRobustList = kCompatCall | 311, kCompatGetRobustList = kCompatCall | 312;

// The register of the n-th argument of a system call.
template <class R>
auto& argument_register(R& r, int n) {
  if (is_compat(r)) {
    decltype(&r.rbx) const slots[6] = {&r.rbx, &r.rcx, &r.rdx, &r.rsi, &r.rdi, &r.rbp};
    return *slots[n];
  }
  decltype(&r.rbx) const slots[6] = {&r.rdi, &r.rsi, &r.rdx, &r.r10, &r.r8, &r.r9};
  return *slots[n];
}
// The n-th argument of the system call that the registers stand at.
inline uint64_t call_argument(const Registers& r, int n) {
  return is_compat(r) ? static_cast<uint32_t>(argument_register(r, n)) : argument_register(r, n);
}
inline void set_call_argument(Registers& r, int n, uint64_t v) {
  argument_register(r, n) = v;
}
// For registers that stand at a call instruction: which call it makes.
inline void set_call_number(Registers& r, uint64_t number) {
  r.rax = number;
}
}  // namespace stasis::arch
