#include "objects/files/build_id.h"

#include <elf.h>
#include <sys/mman.h>

#include <cstring>

#include "objects/files/test_support.h"

namespace stasis {
namespace {

// An ELF file of one note segment at `offset`.
template <class Header, class Segment>
std::string elf(unsigned char word_size, const std::string& notes, uint64_t offset, uint64_t align = 4) {
  Header header{};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = word_size;
  header.e_phoff = sizeof header;
  header.e_phnum = 1;
  header.e_phentsize = sizeof(Segment);
  Segment segment{};
  segment.p_type = PT_NOTE;
  segment.p_offset = static_cast<decltype(segment.p_offset)>(offset);
  segment.p_filesz = static_cast<decltype(segment.p_filesz)>(notes.size());
  segment.p_align = static_cast<decltype(segment.p_align)>(align);
  std::string out(offset + notes.size(), '\0');
  std::memcpy(out.data(), &header, sizeof header);
  std::memcpy(out.data() + sizeof header, &segment, sizeof segment);
  std::memcpy(out.data() + offset, notes.data(), notes.size());
  return out;
}

std::string note(uint32_t type, const std::string& id, uint32_t stated_size) {
  const uint32_t head[3] = {4, stated_size, type};
  std::string out(sizeof head, '\0');
  std::memcpy(out.data(), head, sizeof head);
  out += std::string("GNU\0", 4) + id;
  out.resize((out.size() + 3) / 4 * 4);
  return out;
}
std::string note(uint32_t type, const std::string& id) {
  return note(type, id, static_cast<uint32_t>(id.size()));
}

std::vector<uint32_t> build_id_of_bytes(const std::string& bytes) {
  const Fd fd(::memfd_create("elf", MFD_CLOEXEC));
  EXPECT_EQ(::write(fd.get(), bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  auto id = read_build_id(fd.get());
  EXPECT_EQ(::lseek(fd.get(), 0, SEEK_CUR), static_cast<off_t>(bytes.size()));
  return id;
}

std::string elf64(const std::string& notes, uint64_t offset = 200) {
  return elf<Elf64_Ehdr, Elf64_Phdr>(ELFCLASS64, notes, offset);
}

TEST(BuildId, WordsInHostOrderPaddedWithZeros) {
  EXPECT_EQ(build_id_of_bytes(elf64(note(NT_GNU_BUILD_ID, "\x01\x02\x03\x04\x05"))),
            (std::vector<uint32_t>{0x04030201, 0x05}));
}

TEST(BuildId, OtherNotesAreSkipped) {
  EXPECT_EQ(build_id_of_bytes(elf64(note(NT_GNU_ABI_TAG, "0123456789abcdef") + note(NT_GNU_BUILD_ID, "ABCD"))),
            (std::vector<uint32_t>{0x44434241}));
}

TEST(BuildId, NotesBehindTheFirstPage) {
  EXPECT_EQ(build_id_of_bytes(elf64(note(NT_GNU_BUILD_ID, "ABCD"), 10000)), (std::vector<uint32_t>{0x44434241}));
}

TEST(BuildId, ThirtyTwoBit) {
  EXPECT_EQ(build_id_of_bytes(elf<Elf32_Ehdr, Elf32_Phdr>(ELFCLASS32, note(NT_GNU_BUILD_ID, "ABCD"), 100)),
            (std::vector<uint32_t>{0x44434241}));
}

TEST(BuildId, NonsenseHasNone) {
  EXPECT_TRUE(build_id_of_bytes("").empty());
  EXPECT_TRUE(build_id_of_bytes("#!/bin/sh\nexit 0 # something long enough\n").empty());
  EXPECT_TRUE(build_id_of_bytes(elf64(note(NT_GNU_BUILD_ID, "ABCD", 4000000000u))).empty());
  EXPECT_TRUE(build_id_of_bytes(elf64(note(NT_GNU_BUILD_ID, std::string(65, 'x')))).empty());
  const std::string whole = elf64(note(NT_GNU_BUILD_ID, "ABCD"));
  for (size_t size = 0; size < whole.size(); ++size) EXPECT_TRUE(build_id_of_bytes(whole.substr(0, size)).empty());
}

TEST(BuildId, ThisProgramHasOneOrNone) {
  const Fd self(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  auto id = read_build_id(self.get());
  if (id.empty()) GTEST_SKIP() << "the linker leaves no build id here";
  EXPECT_GE(id.size(), 2u);
}

}  // namespace
}  // namespace stasis
