// Which system calls of 32-bit code wait, and as which ones of 64-bit code (arch/x86/entry/syscalls/syscall_32.tbl).
#include <asm/unistd.h>

#include <algorithm>
#include <iterator>

#include "arch/arch.h"

namespace stasis::arch {

namespace {

struct Row {
  uint16_t number32;
  uint16_t number;
  bool time32;
};
constexpr uint16_t kFutexWait = 455;  // Linux 6.7; the same number everywhere
// The old calls for several things (socketcall, ipc) and the oldest select are not among them: what they wait for is
// told by memory.
constexpr Row kRows[] = {
    {0, __NR_restart_syscall, false},
    {3, __NR_read, false},
    {4, __NR_write, false},
    {142, __NR_select, true},
    {145, __NR_readv, false},
    {146, __NR_writev, false},
    {162, __NR_nanosleep, true},
    {168, __NR_poll, false},
    {177, __NR_rt_sigtimedwait, true},
    {240, __NR_futex, true},
    {247, __NR_io_getevents, true},
    {256, __NR_epoll_wait, false},
    {267, __NR_clock_nanosleep, true},
    {308, __NR_pselect6, true},
    {309, __NR_ppoll, true},
    {319, __NR_epoll_pwait, false},
    {337, __NR_recvmmsg, true},
    {345, __NR_sendmmsg, false},
    {362, __NR_connect, false},
    {364, __NR_accept4, false},
    {369, __NR_sendto, false},
    {370, __NR_sendmsg, false},
    {371, __NR_recvfrom, false},
    {372, __NR_recvmsg, false},
    {407, __NR_clock_nanosleep, false},
    {413, __NR_pselect6, false},
    {414, __NR_ppoll, false},
    {417, __NR_recvmmsg, false},
    {420, __NR_semtimedop, false},
    {421, __NR_rt_sigtimedwait, false},
    {422, __NR_futex, false},
    {441, 441 /* epoll_pwait2 */, false},
    {kFutexWait, kFutexWait, false},
};

}  // namespace

std::optional<CallForm> native_form(uint64_t number, bool compat) {
  if (!compat) return CallForm{number, false};
  const auto* row =
      std::find_if(std::begin(kRows), std::end(kRows), [&](const Row& r) { return r.number32 == number; });
  if (row == std::end(kRows)) return std::nullopt;
  return CallForm{row->number, row->time32};
}

}  // namespace stasis::arch
