#include "arch/compat.h"

#include <cstring>

namespace stasis::arch {

namespace {

// struct user_regs_struct of a 32-bit kernel (arch/x86/include/asm/user_32.h).
struct Registers32 {
  uint32_t bx, cx, dx, si, di, bp, ax, ds, es, fs, gs, orig_ax, ip, cs, flags, sp, ss;
};
static_assert(sizeof(Registers32) == 68);

}  // namespace

std::optional<Registers> widen_registers(std::span<const std::byte> given) {
  Registers32 r;
  if (given.size() != sizeof r) return std::nullopt;
  std::memcpy(&r, given.data(), sizeof r);
  Registers out{};
  out.rbx = r.bx;
  out.rcx = r.cx;
  out.rdx = r.dx;
  out.rsi = r.si;
  out.rdi = r.di;
  out.rbp = r.bp;
  // A result or a number of a call can be negative.
  out.rax = static_cast<uint64_t>(int64_t{static_cast<int32_t>(r.ax)});
  out.orig_rax = static_cast<uint64_t>(int64_t{static_cast<int32_t>(r.orig_ax)});
  out.rip = r.ip;
  out.cs = r.cs;
  out.eflags = r.flags;
  out.rsp = r.sp;
  out.ss = r.ss;
  out.ds = r.ds;
  out.es = r.es;
  out.fs = r.fs;
  out.gs = r.gs;
  return out;
}

}  // namespace stasis::arch
