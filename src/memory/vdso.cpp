#include "memory/vdso.h"

#include <elf.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "arch/arch.h"
#include "base/error.h"
#include "base/page_size.h"
#include "kernel/proc.h"

namespace stasis {

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

namespace {

template <class T>
bool read_at(std::span<const std::byte> image, uint64_t offset, T& out) {
  if (offset > image.size() || image.size() - offset < sizeof(T)) return false;
  std::memcpy(&out, image.data() + offset, sizeof(T));
  return true;
}

std::string text_at(std::span<const std::byte> image, uint64_t offset) {
  std::string text;
  for (; offset < image.size() && image[offset] != std::byte{0}; ++offset) text += static_cast<char>(image[offset]);
  return text;
}

struct Elf64 {
  using Header = Elf64_Ehdr;
  using Segment = Elf64_Phdr;
  using Dynamic = Elf64_Dyn;
  using Symbol = Elf64_Sym;
};
struct Elf32 {
  using Header = Elf32_Ehdr;
  using Segment = Elf32_Phdr;
  using Dynamic = Elf32_Dyn;
  using Symbol = Elf32_Sym;
};

struct DynamicTables {
  uint64_t symbols = 0, strings = 0, hash = 0, gnu_hash = 0;
};

// Addresses in a vdso are offsets in its image.
template <class Elf>
DynamicTables dynamic_tables(std::span<const std::byte> image) {
  DynamicTables tables;
  typename Elf::Header elf;
  if (!read_at(image, 0, elf)) return tables;
  for (size_t i = 0; i < elf.e_phnum; ++i) {
    typename Elf::Segment segment;
    if (!read_at(image, elf.e_phoff + i * sizeof segment, segment)) break;
    if (segment.p_type != PT_DYNAMIC) continue;
    typename Elf::Dynamic entry;
    for (uint64_t at = segment.p_offset; read_at(image, at, entry) && entry.d_tag != DT_NULL; at += sizeof entry) {
      if (entry.d_tag == DT_SYMTAB) tables.symbols = entry.d_un.d_ptr;
      if (entry.d_tag == DT_STRTAB) tables.strings = entry.d_un.d_ptr;
      if (entry.d_tag == DT_HASH) tables.hash = entry.d_un.d_ptr;
      if (entry.d_tag == DT_GNU_HASH) tables.gnu_hash = entry.d_un.d_ptr;
    }
  }
  return tables;
}

// The highest symbol that a chain of the GNU hash table ends with, plus one.
uint64_t gnu_hash_count(std::span<const std::byte> image, uint64_t at, size_t word_bytes) {
  struct {
    uint32_t buckets, first, bloom_words, shift;
  } head;
  if (!read_at(image, at, head)) return 0;
  const uint64_t buckets = at + sizeof head + uint64_t{head.bloom_words} * word_bytes;
  const uint64_t chains = buckets + uint64_t{head.buckets} * sizeof(uint32_t);
  uint64_t last = 0;
  uint32_t symbol = 0;
  for (uint64_t i = 0; i < head.buckets && read_at(image, buckets + i * sizeof symbol, symbol); ++i)
    last = std::max<uint64_t>(last, symbol);
  if (last < head.first) return 0;
  for (uint32_t hash = 0; read_at(image, chains + (last - head.first) * sizeof hash, hash); ++last)
    if ((hash & 1) != 0) return last + 1;
  return 0;
}

template <class Elf>
std::vector<VdsoFunction> functions_of(std::span<const std::byte> image) {
  std::vector<VdsoFunction> out;
  const DynamicTables tables = dynamic_tables<Elf>(image);
  if (tables.symbols == 0 || tables.strings == 0) return out;
  uint64_t count = 0;
  uint32_t chains = 0;
  if (tables.hash != 0 && read_at(image, tables.hash + sizeof(uint32_t), chains))
    count = chains;
  else if (tables.gnu_hash != 0)
    count = gnu_hash_count(image, tables.gnu_hash, sizeof(Elf::Header::e_entry));
  typename Elf::Symbol symbol;
  for (uint64_t i = 0; i < count && read_at(image, tables.symbols + i * sizeof symbol, symbol); ++i) {
    const unsigned type = symbol.st_info & 0xf;
    if ((type != STT_FUNC && type != STT_NOTYPE) || symbol.st_shndx == SHN_UNDEF || symbol.st_shndx >= SHN_LORESERVE)
      continue;
    if (symbol.st_value >= image.size()) return {};
    out.push_back({text_at(image, tables.strings + symbol.st_name), symbol.st_value});
  }
  std::sort(out.begin(), out.end(), [](const VdsoFunction& a, const VdsoFunction& b) {
    return a.offset != b.offset ? a.offset < b.offset : a.name < b.name;
  });
  return out;
}

template <class Elf>
size_t meaningful_bytes(std::span<const std::byte> image) {
  typename Elf::Header elf;
  if (!read_at(image, 0, elf)) return 0;
  uint64_t end = elf.e_shoff + uint64_t{elf.e_shnum} * elf.e_shentsize;
  for (size_t i = 0; i < elf.e_phnum; ++i) {
    typename Elf::Segment segment;
    if (!read_at(image, elf.e_phoff + i * sizeof segment, segment)) return image.size();
    end = std::max<uint64_t>(end, uint64_t{segment.p_offset} + segment.p_filesz);
  }
  return std::min<uint64_t>(end, image.size());
}

}  // namespace

ElfClass elf_class(std::span<const std::byte> image) {
  if (image.size() < EI_NIDENT || std::memcmp(image.data(), ELFMAG, SELFMAG) != 0) return ElfClass::none;
  return image[EI_CLASS] == std::byte{ELFCLASS64} ? ElfClass::elf64 : ElfClass::elf32;
}

size_t vdso_meaningful_bytes(std::span<const std::byte> image) {
  switch (elf_class(image)) {
    case ElfClass::elf64:
      return meaningful_bytes<Elf64>(image);
    case ElfClass::elf32:
      return meaningful_bytes<Elf32>(image);
    default:
      return 0;
  }
}

std::vector<VdsoFunction> vdso_functions(std::span<const std::byte> image) {
  switch (elf_class(image)) {
    case ElfClass::elf64:
      return functions_of<Elf64>(image);
    case ElfClass::elf32:
      return functions_of<Elf32>(image);
    default:
      return {};
  }
}

bool same_vdso_code(const Vdso& dumped, const Vdso& own) {
  const size_t bytes = vdso_meaningful_bytes(own.image);
  return bytes != 0 && dumped.image.size() == own.image.size() &&
         std::equal(own.image.begin(), own.image.begin() + static_cast<ptrdiff_t>(bytes), dumped.image.begin());
}

std::string vdso_difference(const Vdso& dumped, const Vdso& own) {
  if (!dumped.layout.present()) return "";
  if (!own.layout.present()) return "this kernel gives no vdso";
  if (dumped.layout.vdso_size != own.layout.vdso_size || dumped.layout.vvar_size != own.layout.vvar_size) {
    return fmt::format("it had {} bytes of data and {} of code, this kernel has {} and {}", dumped.layout.vvar_size,
                       dumped.layout.vdso_size, own.layout.vvar_size, own.layout.vdso_size);
  }
  if (!dumped.layout.contiguous()) return "its data and its code were not next to each other";
  if (same_vdso_code(dumped, own)) return "";
  const std::vector<VdsoFunction> functions = vdso_functions(dumped.image);
  // Code differs with the processor, too: the kernel adapts it when it starts.
  if (!functions.empty() && functions == vdso_functions(own.image)) return "";
  return "its functions are at other places than those of this kernel";
}

// ---- jumps -----------------------------------------------------------------------------------------------

namespace {

// Where ELF has padding: "Stasis" and a version. The places of the section headers, which no program reads from memory,
// tell how far before it the data of the old vdso was: it comes back as empty memory, so that the addresses stay taken.
constexpr unsigned char kMark[EI_NIDENT - EI_PAD] = {'S', 't', 'a', 's', 'i', 's', 1};
constexpr uint64_t kMostVdsoBytes = uint64_t{256} << 10;

void mark(std::vector<std::byte>& image, const VdsoLayout& layout) {
  Elf64_Ehdr elf;
  std::memcpy(&elf, image.data(), sizeof elf);
  std::memcpy(elf.e_ident + EI_PAD, kMark, sizeof kMark);
  elf.e_shoff = layout.vdso_start - layout.vvar_start;
  elf.e_shentsize = 0;
  elf.e_shnum = static_cast<uint16_t>(layout.vvar_size / page_size_bytes());
  elf.e_shstrndx = SHN_UNDEF;
  std::memcpy(image.data(), &elf, sizeof elf);
}

Error no_jumps(const std::string& why) {
  return Error(Reason::IMAGE_UNSUPPORTED, "the vdso of this kernel is another one, and " + why)
      .remedy("restore on the kernel of the dump");
}

}  // namespace

std::vector<std::byte> vdso_with_jumps(const Vdso& dumped, const Vdso& own, uint64_t own_start) {
  std::vector<std::byte> image = dumped.image;
  Elf64_Ehdr elf;
  if (!read_at(std::span<const std::byte>(image), 0, elf) || elf.e_ident[EI_CLASS] != ELFCLASS64)
    throw no_jumps("that of the dump is not understood");
  const std::vector<VdsoFunction> functions = vdso_functions(image);
  if (functions.empty()) throw no_jumps("that of the dump is not understood");
  const std::vector<VdsoFunction> targets = vdso_functions(own.image);
  for (size_t i = 0; i < functions.size(); ++i) {
    const VdsoFunction& f = functions[i];
    const auto next = std::find_if(functions.begin() + static_cast<ptrdiff_t>(i), functions.end(),
                                   [&](const VdsoFunction& other) { return other.offset > f.offset; });
    const uint64_t room = (next != functions.end() ? next->offset : image.size()) - f.offset;
    const auto target = std::find_if(targets.begin(), targets.end(), [&](const auto& t) { return t.name == f.name; });
    const std::vector<std::byte> code = target != targets.end()
                                            ? arch::jump_to(own_start + own.layout.vvar_size + target->offset)
                                            : arch::vdso_fallback(f.name);
    if (code.size() > room) throw no_jumps(fmt::format("its {} has no room for a jump", f.name));
    std::copy(code.begin(), code.end(), image.begin() + static_cast<ptrdiff_t>(f.offset));
  }
  mark(image, dumped.layout);
  return image;
}

namespace {

bool is_plain_anonymous(const Vma& v, uint32_t prot) {
  return v.prot == prot && v.has(vma_status::anon_private) && !v.has(vma_status::vdso) && !v.has(vma_status::vvar) &&
         !v.has(vma_status::heap) && v.is_private();
}

void become(Vma& v, uint32_t status) {
  v.status = status | vma_status::anon_private | vma_status::regular;
  v.flags = MAP_PRIVATE | MAP_ANONYMOUS;
  v.madv = 0;
}

}  // namespace

std::optional<VdsoLayout> take_marked_vdso(std::span<Vma> areas, const ReadSaved& read) {
  Elf64_Ehdr elf;
  const auto marked = std::find_if(areas.begin(), areas.end(), [&](const Vma& v) {
    return v.size_bytes() <= kMostVdsoBytes && is_plain_anonymous(v, PROT_READ | PROT_EXEC) &&
           read_at(std::span<const std::byte>(read(v.start, v.start + sizeof elf)), 0, elf) &&
           std::memcmp(elf.e_ident, ELFMAG, SELFMAG) == 0 &&
           std::memcmp(elf.e_ident + EI_PAD, kMark, sizeof kMark) == 0;
  });
  if (marked == areas.end()) return std::nullopt;
  become(*marked, vma_status::vdso);
  VdsoLayout layout{.vdso_start = marked->start, .vdso_size = marked->size_bytes()};
  for (Vma& v : areas) {
    if (v.start != layout.vdso_start - elf.e_shoff || v.size_bytes() != elf.e_shnum * page_size_bytes() ||
        !is_plain_anonymous(v, PROT_READ))
      continue;
    become(v, vma_status::vvar);
    layout.vvar_start = v.start;
    layout.vvar_size = v.size_bytes();
  }
  return layout;
}

}  // namespace stasis
