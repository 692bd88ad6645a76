// Text of /proc/PID/maps and /proc/PID/smaps.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace stasis {

// clang-format off
// The two-letter codes of the smaps line "VmFlags:"; the value is the bit number in Mapping::vm_flags.
enum class VmFlag : uint8_t {
  rd, wr, ex, sh, mr, mw, me, ms,  // protection, and what mprotect may add
  gd,                              // grows down
  pf,                              // PFN map (device memory)
  dw,                              // deny write (removed in 5.15)
  lo, lf,                          // locked; locked on fault
  io,                              // device I/O
  sr, rr,                          // MADV_SEQUENTIAL, MADV_RANDOM
  dc, de,                          // MADV_DONTFORK; may not be expanded by mremap
  ac, nr,                          // accounted; MAP_NORESERVE
  ht, sf, nl, ar,                  // hugetlb; MAP_SYNC; non-linear (removed in 4.0); architecture's own
  wf, dd, sd, mm,                  // wipe on fork; dont dump; soft dirty; mixed map
  hg, nh, mg,                      // MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_MERGEABLE
  bt, mt, mp,                      // arm64 BTI, arm64 MTE, x86 MPX (removed in 5.6)
  um, uw, ui,                      // userfaultfd missing, write-protect, minor
  ss, sl, dp, gu,                  // shadow stack; sealed; droppable; may hold guard pages
};
// clang-format on
inline constexpr int kVmFlagCount = static_cast<int>(VmFlag::gu) + 1;

constexpr uint64_t vm_flag_bit(VmFlag flag) noexcept {
  return uint64_t{1} << static_cast<int>(flag);
}

struct Mapping {
  uint64_t start = 0;
  uint64_t end = 0;
  bool read = false, write = false, exec = false, shared = false;
  uint64_t offset = 0;
  uint32_t dev_major = 0, dev_minor = 0;
  uint64_t inode = 0;
  // The path, "[heap]", "[anon:NAME]" ... or empty. Newlines, which the kernel writes as \012, are restored; the
  // kernel does not escape the backslash, so a name that holds these four characters reads as a newline.
  std::string name;
  // " (deleted)" was cut from the name. A file whose own name ends that way looks the same: compare the inode.
  bool deleted = false;

  // From smaps only.
  uint64_t vm_flags = 0;
  std::string unknown_vm_flags;  // letters this program does not know, blank separated
  uint32_t kernel_page_size_kib = 0;
  uint64_t locked_kib = 0;
  int protection_key = 0;

  uint64_t size_bytes() const noexcept { return end - start; }
  bool has(VmFlag flag) const noexcept { return (vm_flags & vm_flag_bit(flag)) != 0; }
};

// In ascending order of addresses. The overload with `out` appends and lets the caller keep the capacity.
std::vector<Mapping> parse_maps(std::string_view text);
void parse_maps(std::string_view text, std::vector<Mapping>& out);
// Header, VmFlags and the few numbers above; everything else is skipped.
std::vector<Mapping> parse_smaps(std::string_view text);
void parse_smaps(std::string_view text, std::vector<Mapping>& out);

}  // namespace stasis
