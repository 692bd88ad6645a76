// x86-64: the general registers as PTRACE_GETREGSET(NT_PRSTATUS) transfers them, under names all CPUs share.
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
// The n-th argument of the system call that the registers stand at.
inline uint64_t call_argument(const Registers& r, int n) {
  switch (n) {
    case 0:
      return r.rdi;
    case 1:
      return r.rsi;
    case 2:
      return r.rdx;
    case 3:
      return r.r10;
    case 4:
      return r.r8;
    default:
      return r.r9;
  }
}
inline void set_call_argument(Registers& r, int n, uint64_t v) {
  switch (n) {
    case 0:
      r.rdi = v;
      break;
    case 1:
      r.rsi = v;
      break;
    case 2:
      r.rdx = v;
      break;
    case 3:
      r.r10 = v;
      break;
    case 4:
      r.r8 = v;
      break;
    default:
      r.r9 = v;
  }
}
// For registers that stand at a call instruction: which call it makes.
inline void set_call_number(Registers& r, uint64_t number) {
  r.rax = number;
}
// True for a thread that runs 32-bit code.
inline bool is_compat(const Registers& r) {
  return r.cs != 0x33;
}

}  // namespace stasis::arch
