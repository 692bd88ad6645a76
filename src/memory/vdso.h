// The vdso of this process, and whether a dumped one is the same.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "memory/vma.h"

namespace stasis {

// All zero: the task has none (it unmapped it). Both parts are mapped by one arch_prctl at `vvar_start`.
struct VdsoLayout {
  uint64_t vvar_start = 0;
  uint64_t vvar_size = 0;  // all vvar ranges, which are consecutive
  uint64_t vdso_start = 0;
  uint64_t vdso_size = 0;

  bool present() const noexcept { return vdso_size != 0; }
  bool operator==(const VdsoLayout&) const = default;
};

VdsoLayout vdso_layout(std::span<const Vma> vmas);

struct Vdso {
  VdsoLayout layout;
  std::vector<std::byte> image;  // whole pages
};

// Of this process, and so of the running kernel.
Vdso own_vdso();

// Bytes of the image that mean something: the ELF file without what follows it in the last page, where code of a
// controller may have been left. 0 if it is no ELF file.
size_t vdso_meaningful_bytes(std::span<const std::byte> image);

// Why functions of `dumped` cannot be called at the same addresses of `own`; empty when they can.
std::string vdso_difference(const Vdso& dumped, const Vdso& own);

}  // namespace stasis
