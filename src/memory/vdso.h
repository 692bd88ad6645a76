// The vdso of this process, and how a dumped one is brought back.
//
// Programs keep addresses of vdso functions: they must stay good on any kernel. Where the present vdso has its
// functions at the same offsets it is mapped in the place of the dumped one. Else the dumped image comes back as plain
// memory whose functions jump into the present vdso, which is mapped elsewhere. A dump saves both as they are. Such an
// image is marked: should the kernel change again, it is taken for the vdso that it stands for, so that nothing piles
// up.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "memory/vma.h"

namespace stasis {

// All zero: the task has none (it unmapped it).
struct VdsoLayout {
  uint64_t vvar_start = 0;
  uint64_t vvar_size = 0;  // all vvar ranges, which are consecutive
  uint64_t vdso_start = 0;
  uint64_t vdso_size = 0;

  bool present() const noexcept { return vdso_size != 0; }
  // As the kernel maps them by one arch_prctl: the data, and the code right behind it.
  bool contiguous() const noexcept { return vvar_start + vvar_size == vdso_start; }
  uint64_t size_bytes() const noexcept { return vvar_size + vdso_size; }
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

// Of which width its code is.
enum class ElfClass { none, elf32, elf64 };
ElfClass elf_class(std::span<const std::byte> image);

struct VdsoFunction {
  std::string name;
  uint64_t offset = 0;
  bool operator==(const VdsoFunction&) const = default;
};
// What the image exports, by offset and name. Empty if it is not understood.
std::vector<VdsoFunction> vdso_functions(std::span<const std::byte> image);

// The same code: threads may go on in the middle of it.
bool same_vdso_code(const Vdso& dumped, const Vdso& own);
// Why the functions of `dumped` are not at the same addresses when `own` is mapped in its place; empty when they are.
std::string vdso_difference(const Vdso& dumped, const Vdso& own);

// The image of `dumped` with jumps in its functions to those of `own`, mapped at `own_start` (its first address, that
// of the data). A function that `own` lacks makes its system call. Marked. Throws IMAGE_UNSUPPORTED.
std::vector<std::byte> vdso_with_jumps(const Vdso& dumped, const Vdso& own, uint64_t own_start);

// Areas of a task that was restored with vdso_with_jumps() and dumped again: gives the old vdso and its data the status
// of a vdso again. Empty if there is none. `read` gives the saved bytes of a range.
using ReadSaved = std::function<std::vector<std::byte>(uint64_t start, uint64_t end)>;
std::optional<VdsoLayout> take_marked_vdso(std::span<Vma> areas, const ReadSaved& read);

}  // namespace stasis
