#include "kernel/proc_maps.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

#include "base/error.h"
#include "kernel/proc.h"

namespace stasis {
namespace {

constexpr std::string_view kMapsText =
    "00400000-00401000 r-xp 00000000 fd:01 1234                               /usr/bin/a b\\012c\n"
    "7f0000000000-7f0000001000 rw-s 00002000 00:01 77                         /memfd:x (deleted)\n"
    "7f0000002000-7f0000004000 ---p 00000000 00:00 0 \n"
    "7f0000005000-7f0000006000 rw-s 00000000 00:0f 99                         /srv/odd (deleted) (deleted)\n"
    "7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0                          [stack]\n"
    "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n";

TEST(ParseMaps, EveryKindOfLine) {
  const auto maps = parse_maps(kMapsText);
  ASSERT_EQ(maps.size(), 6u);
  EXPECT_EQ(maps[0].start, 0x400000u);
  EXPECT_EQ(maps[0].size_bytes(), 0x1000u);
  EXPECT_TRUE(maps[0].read && !maps[0].write && maps[0].exec && !maps[0].shared);
  EXPECT_EQ(maps[0].dev_major, 0xfdu);
  EXPECT_EQ(maps[0].dev_minor, 1u);
  EXPECT_EQ(maps[0].inode, 1234u);
  EXPECT_EQ(maps[0].name, "/usr/bin/a b\nc");
  EXPECT_FALSE(maps[0].deleted);
  EXPECT_TRUE(maps[1].shared && maps[1].write && maps[1].deleted);
  EXPECT_EQ(maps[1].name, "/memfd:x");
  EXPECT_EQ(maps[1].offset, 0x2000u);
  EXPECT_EQ(maps[2].name, "");
  EXPECT_FALSE(maps[2].read || maps[2].write || maps[2].exec || maps[2].shared);
  EXPECT_EQ(maps[3].name, "/srv/odd (deleted)");
  EXPECT_TRUE(maps[3].deleted);
  EXPECT_EQ(maps[4].name, "[stack]");
  EXPECT_EQ(maps[5].end, 0xffffffffff601000u);
}

TEST(ParseMaps, BadTextIsAnErrorAndNeverACrash) {
  EXPECT_TRUE(parse_maps("").empty());
  EXPECT_THROW(parse_maps("\n"), Error);
  EXPECT_THROW(parse_maps("400000"), Error);
  EXPECT_THROW(parse_maps("400000-300000 r-xp 0 00:00 0\n"), Error);
  EXPECT_THROW(parse_maps("400000-500000 r-\n"), Error);
  EXPECT_THROW(parse_maps("11112222333344445-21112222333344445 r-xp 0 0:0 0\n"), Error);
  for (size_t n = 0; n < kMapsText.size(); ++n) {
    try {
      parse_maps(kMapsText.substr(0, n));
    } catch (const Error& error) {
      EXPECT_EQ(error.reason(), Reason::PROC_TEXT);
    }
  }
}

constexpr std::string_view kSmapsText =
    "55500000-55521000 rw-p 00000000 00:00 0                                  [heap]\n"
    "Size:                132 kB\nKernelPageSize:        4 kB\nMMUPageSize:           4 kB\nRss:  4 kB\n"
    "Pss:                   4 kB\nPss_Dirty: 4 kB\nAnonHugePages:         0 kB\nLocked:               16 kB\n"
    "THPeligible:           0\nProtectionKey:         3\n"
    "VmFlags: rd wr mr mw me lo ac sd zz q9 um gu \n"
    "7f1200000000-7f1200200000 rw-s 00000000 00:0e 5                          /anon_hugepage (deleted)\n"
    "Size:               2048 kB\nKernelPageSize:     2048 kB\nVmFlags: rd wr sh mr mw me ms de ht \n";

TEST(ParseSmaps, FlagsAndNumbers) {
  const auto maps = parse_smaps(kSmapsText);
  ASSERT_EQ(maps.size(), 2u);
  EXPECT_EQ(maps[0].name, "[heap]");
  EXPECT_EQ(maps[0].kernel_page_size_kib, 4u);
  EXPECT_EQ(maps[0].locked_kib, 16u);
  EXPECT_EQ(maps[0].protection_key, 3);
  for (const VmFlag flag : {VmFlag::rd, VmFlag::wr, VmFlag::lo, VmFlag::sd, VmFlag::um, VmFlag::gu})
    EXPECT_TRUE(maps[0].has(flag)) << static_cast<int>(flag);
  EXPECT_FALSE(maps[0].has(VmFlag::ht));
  EXPECT_EQ(maps[0].unknown_vm_flags, "zz q9");
  EXPECT_TRUE(maps[1].has(VmFlag::ht) && maps[1].has(VmFlag::de) && maps[1].has(VmFlag::sh));
  EXPECT_EQ(maps[1].kernel_page_size_kib, 2048u);
  EXPECT_TRUE(maps[1].deleted);
  EXPECT_EQ(maps[1].unknown_vm_flags, "");
}

TEST(ParseSmaps, LockedOnFaultHasNoLettersOnOldKernels) {
  const auto maps = parse_smaps(
      "1000-2000 rw-p 00000000 00:00 0\nVmFlags: rd wr lo ?? ac\n"
      "3000-4000 rw-p 00000000 00:00 0\nVmFlags: rd wr ?? ac\n");
  EXPECT_TRUE(maps[0].has(VmFlag::lf));
  EXPECT_EQ(maps[0].unknown_vm_flags, "");
  EXPECT_FALSE(maps[1].has(VmFlag::lf));
  EXPECT_EQ(maps[1].unknown_vm_flags, "??");
}

TEST(ParseSmaps, BadTextIsAnErrorAndNeverACrash) {
  EXPECT_THROW(parse_smaps("VmFlags: rd\n"), Error);
  for (size_t n = 0; n < kSmapsText.size(); ++n) {
    try {
      parse_smaps(kSmapsText.substr(0, n));
    } catch (const Error& error) {
      EXPECT_EQ(error.reason(), Reason::PROC_TEXT);
    }
  }
}

TEST(LiveMaps, MapsAndSmapsOfThisProcessShowItsMapping) {
  const long page = sysconf(_SC_PAGESIZE);
  const int memfd = memfd_create("line\nbreak", MFD_CLOEXEC);
  ASSERT_EQ(ftruncate(memfd, page), 0);
  void* area = mmap(nullptr, static_cast<size_t>(page), PROT_READ, MAP_SHARED, memfd, 0);
  close(memfd);
  ASSERT_NE(area, MAP_FAILED);
  ASSERT_EQ(madvise(area, static_cast<size_t>(page), MADV_DONTFORK), 0);
  ProcDir self(getpid());
  for (const bool detailed : {false, true}) {
    const auto maps = detailed ? parse_smaps(self.read("smaps")) : parse_maps(self.read("maps"));
    const auto found = std::ranges::find(maps, reinterpret_cast<uint64_t>(area), &Mapping::start);
    ASSERT_NE(found, maps.end());
    EXPECT_EQ(found->name, "/memfd:line\nbreak");
    EXPECT_TRUE(found->deleted && found->shared && found->read && !found->write);
    if (!detailed) continue;
    EXPECT_TRUE(found->has(VmFlag::sh) && found->has(VmFlag::dc));
    EXPECT_EQ(found->kernel_page_size_kib * 1024, static_cast<uint32_t>(page));
    for (const Mapping& m : maps) EXPECT_EQ(m.unknown_vm_flags, "") << m.name;
  }
  munmap(area, static_cast<size_t>(page));
}

}  // namespace
}  // namespace stasis
