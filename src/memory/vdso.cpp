#include "memory/vdso.h"

#include <elf.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "kernel/proc.h"

namespace stasis {

namespace {

template <class Header>
const Header* header_at(std::span<const std::byte> image, uint64_t offset) {
  if (offset > image.size() || image.size() - offset < sizeof(Header)) return nullptr;
  return reinterpret_cast<const Header*>(image.data() + offset);
}

}  // namespace

VdsoLayout vdso_layout(std::span<const Vma> vmas) {
  VdsoLayout layout;
  for (const Vma& vma : vmas) {
    if (vma.has(vma_status::vdso)) {
      layout.vdso_start = vma.start;
      layout.vdso_size = vma.size_bytes();
    } else if (vma.has(vma_status::vvar)) {
      layout.vvar_start = vma.start;
      layout.vvar_size = vma.size_bytes();
    }
  }
  return layout;
}

Vdso own_vdso() {
  ProcDir self(::getpid());
  const std::vector<Mapping> mappings = parse_maps(self.read("maps"));
  std::vector<Mapping> special;
  std::copy_if(mappings.begin(), mappings.end(), std::back_inserter(special),
               [](const Mapping& m) { return m.name == "[vdso]" || m.name.starts_with("[vvar"); });
  Vdso own;
  own.layout = vdso_layout(classify(special));
  own.image.resize(own.layout.vdso_size);
  if (own.layout.present()) {
    std::memcpy(own.image.data(), reinterpret_cast<const void*>(own.layout.vdso_start), own.image.size());
  }
  return own;
}

size_t vdso_meaningful_bytes(std::span<const std::byte> image) {
  const auto* elf = header_at<Elf64_Ehdr>(image, 0);
  if (elf == nullptr || std::memcmp(elf->e_ident, ELFMAG, SELFMAG) != 0) return 0;
  uint64_t end = elf->e_shoff + uint64_t{elf->e_shnum} * elf->e_shentsize;
  for (size_t i = 0; i < elf->e_phnum; ++i) {
    const auto* segment = header_at<Elf64_Phdr>(image, elf->e_phoff + i * sizeof(Elf64_Phdr));
    if (segment == nullptr) return image.size();
    end = std::max(end, segment->p_offset + segment->p_filesz);
  }
  return std::min<uint64_t>(end, image.size());
}

std::string vdso_difference(const Vdso& dumped, const Vdso& own) {
  if (!dumped.layout.present()) return "";
  if (!own.layout.present()) return "this kernel gives no vdso";
  if (dumped.layout.vdso_size != own.layout.vdso_size || dumped.layout.vvar_size != own.layout.vvar_size) {
    return fmt::format("it had {} bytes of data and {} of code, this kernel has {} and {}", dumped.layout.vvar_size,
                       dumped.layout.vdso_size, own.layout.vvar_size, own.layout.vdso_size);
  }
  if (dumped.layout.vvar_start + dumped.layout.vvar_size != dumped.layout.vdso_start &&
      own.layout.vvar_start + own.layout.vvar_size == own.layout.vdso_start) {
    return "its data and its code were not next to each other";
  }
  const size_t bytes = vdso_meaningful_bytes(own.image);
  if (bytes == 0 || dumped.image.size() < bytes) return "its image is not complete";
  if (!std::equal(own.image.begin(), own.image.begin() + static_cast<ptrdiff_t>(bytes), dumped.image.begin())) {
    return "its code differs from that of this kernel";
  }
  return "";
}

}  // namespace stasis
