#include <asm/unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>

#include "arch/arch.h"

namespace stasis::arch {

namespace {

struct Call {
  std::string_view name;  // without the prefix __vdso_
  int32_t number;
};
constexpr Call kCalls[] = {
    {"clock_gettime", __NR_clock_gettime},
    {"gettimeofday", __NR_gettimeofday},
    {"time", __NR_time},
    {"clock_getres", __NR_clock_getres},
    {"getcpu", __NR_getcpu},
    {"getrandom", __NR_getrandom},
};

}  // namespace

std::vector<std::byte> jump_to(uint64_t target) {
  // movabs $target, %rax (the register of the result holds no argument); jmp *%rax
  constexpr unsigned char kCode[12] = {0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xe0};
  std::vector<std::byte> code(sizeof kCode);
  std::memcpy(code.data(), kCode, sizeof kCode);
  std::memcpy(code.data() + 2, &target, sizeof target);
  return code;
}

std::vector<std::byte> vdso_fallback(std::string_view function) {
  constexpr std::string_view kPrefix = "__vdso_";
  if (function.starts_with(kPrefix)) function.remove_prefix(kPrefix.size());
  const auto* call =
      std::find_if(std::begin(kCalls), std::end(kCalls), [&](const Call& c) { return c.name == function; });
  const bool known = call != std::end(kCalls);
  const int32_t rax = known ? call->number : -ENOSYS;
  // mov $number, %rax; syscall, whose first three arguments are where those of a function are; ret
  constexpr unsigned char kCode[10] = {0x48, 0xc7, 0xc0, 0, 0, 0, 0, 0x0f, 0x05, 0xc3};
  constexpr unsigned char kNop[2] = {0x66, 0x90};
  std::vector<std::byte> code(sizeof kCode);
  std::memcpy(code.data(), kCode, sizeof kCode);
  std::memcpy(code.data() + 3, &rax, sizeof rax);
  if (!known) std::memcpy(code.data() + 7, kNop, sizeof kNop);
  return code;
}

}  // namespace stasis::arch
