#include "objects/files/build_id.h"

#include <elf.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <span>

namespace stasis {
namespace {

// Linkers put headers and notes at the start of the file.
constexpr size_t head_bytes = 4096;
constexpr uint64_t max_notes_bytes = 1u << 16;
constexpr uint64_t max_id_bytes = 64;

using Bytes = std::span<const std::byte>;

template <class T>
bool take(Bytes from, uint64_t offset, T& out) {
  if (offset > from.size() || from.size() - offset < sizeof(T)) return false;
  std::memcpy(&out, from.data() + offset, sizeof(T));
  return true;
}

std::vector<uint32_t> as_words(Bytes id) {
  std::vector<uint32_t> words((id.size() + 3) / 4);
  if (!id.empty()) std::memcpy(words.data(), id.data(), id.size());
  return words;
}

// Layout of one note: elf(5), Nhdr. Both word sizes of ELF use the same header.
std::vector<uint32_t> find_in_notes(Bytes notes, uint64_t align) {
  const auto rounded = [align](uint64_t n) { return (n + align - 1) / align * align; };
  Elf64_Nhdr note;
  for (uint64_t at = 0; take(notes, at, note);) {
    const uint64_t name_at = at + sizeof note;
    const uint64_t id_at = rounded(name_at + note.n_namesz);
    if (id_at > notes.size() || notes.size() - id_at < note.n_descsz) break;
    const bool gnu = note.n_namesz == 4 && std::memcmp(notes.data() + name_at, "GNU", 4) == 0;
    if (gnu && note.n_type == NT_GNU_BUILD_ID && note.n_descsz > 0 && note.n_descsz <= max_id_bytes)
      return as_words(notes.subspan(id_at, note.n_descsz));
    at = rounded(id_at + note.n_descsz);
  }
  return {};
}

template <class Header, class Segment>
std::vector<uint32_t> find_in_segments(int fd, Bytes head) {
  Header header;
  if (!take(head, 0, header) || header.e_phentsize != sizeof(Segment)) return {};
  for (uint64_t i = 0; i < header.e_phnum; ++i) {
    Segment segment;
    if (!take(head, header.e_phoff + i * sizeof segment, segment)) return {};
    if (segment.p_type != PT_NOTE || segment.p_filesz > max_notes_bytes) continue;
    const uint64_t align = segment.p_align == 8 ? 8 : 4;
    std::vector<uint32_t> id;
    if (segment.p_offset <= head.size() && head.size() - segment.p_offset >= segment.p_filesz) {
      id = find_in_notes(head.subspan(segment.p_offset, segment.p_filesz), align);
    } else {
      std::vector<std::byte> far(segment.p_filesz);
      const ssize_t got = ::pread(fd, far.data(), far.size(), static_cast<off_t>(segment.p_offset));
      if (got > 0) id = find_in_notes(Bytes(far).first(static_cast<size_t>(got)), align);
    }
    if (!id.empty()) return id;
  }
  return {};
}

}  // namespace

std::vector<uint32_t> read_build_id(int fd) {
  std::array<std::byte, head_bytes> buffer;
  const ssize_t got = ::pread(fd, buffer.data(), buffer.size(), 0);
  if (got < EI_NIDENT) return {};
  const Bytes head = Bytes(buffer).first(static_cast<size_t>(got));
  if (std::memcmp(head.data(), ELFMAG, SELFMAG) != 0) return {};
  switch (static_cast<int>(head[EI_CLASS])) {
    case ELFCLASS64:
      return find_in_segments<Elf64_Ehdr, Elf64_Phdr>(fd, head);
    case ELFCLASS32:
      return find_in_segments<Elf32_Ehdr, Elf32_Phdr>(fd, head);
    default:
      return {};
  }
}

}  // namespace stasis
