#include "memory/vma.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include "base/test_error.h"
#include "memory/test_child.h"
#include "proto/mm.pb.h"

namespace stasis {
namespace {

// Recorded from a shell's sleep; only the lines that are read.
constexpr std::string_view sleep_smaps =
    "55ec440bd000-55ec440bf000 r--p 00000000 fe:00 248056                     /usr/bin/sleep\n"
    "KernelPageSize:        4 kB\nVmFlags: rd mr mw me \n"
    "55ec440bf000-55ec440c4000 r-xp 00002000 fe:00 248056                     /usr/bin/sleep\n"
    "KernelPageSize:        4 kB\nVmFlags: rd ex mr mw me \n"
    "55ec440c6000-55ec440c7000 r--p 00009000 fe:00 248056                     /usr/bin/sleep\n"
    "KernelPageSize:        4 kB\nVmFlags: rd mr mw me ac \n"
    "55ec440c7000-55ec440c8000 rw-p 0000a000 fe:00 248056                     /usr/bin/sleep\n"
    "KernelPageSize:        4 kB\nVmFlags: rd wr mr mw me ac \n"
    "55ec57394000-55ec573b5000 rw-p 00000000 00:00 0                          [heap]\n"
    "KernelPageSize:        4 kB\nVmFlags: rd wr mr mw me ac \n"
    "7fbcb35a6000-7fbcb35ad000 r--s 00000000 fe:00 332280                     /usr/lib/gconv/gconv-modules.cache\n"
    "KernelPageSize:        4 kB\nVmFlags: rd mr me ms \n"
    "7fbcb35ae000-7fbcb35b0000 rw-p 00000000 00:00 0 \n"
    "KernelPageSize:        4 kB\nVmFlags: rd wr mr mw me ac \n"
    "7fbcb35b0000-7fbcb35b4000 r--p 00000000 00:00 0                          [vvar]\n"
    "KernelPageSize:        4 kB\nVmFlags: rd mr pf io de dd \n"
    "7fbcb35b4000-7fbcb35b6000 r--p 00000000 00:00 0                          [vvar_vclock]\n"
    "KernelPageSize:        4 kB\nVmFlags: rd mr pf io de dd \n"
    "7fbcb35b6000-7fbcb35b8000 r-xp 00000000 00:00 0                          [vdso]\n"
    "KernelPageSize:        4 kB\nVmFlags: rd ex mr mw me de \n"
    "7ffc2745b000-7ffc2747c000 rw-p 00000000 00:00 0                          [stack]\n"
    "KernelPageSize:        4 kB\nVmFlags: rd wr mr mw me gd ac \n"
    "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n"
    "KernelPageSize:        4 kB\nVmFlags: ex \n";

Mapping one(std::string_view header, std::string_view flags, std::string_view more = "") {
  return parse_smaps(fmt::format("{}\n{}VmFlags: {} \n", header, more, flags)).at(0);
}

Vma classify_one(const Mapping& mapping) {
  return classify(std::span(&mapping, 1)).at(0);
}

TEST(Classify, AnOrdinaryProgram) {
  const std::vector<Vma> vmas = classify(parse_smaps(sleep_smaps));
  struct Expected {
    uint32_t status, flags, prot;
  };
  const Expected expected[] = {{0x41, 0x2, 1},   {0x41, 0x2, 5},    {0x41, 0x2, 1},   {0x41, 0x2, 3},
                               {0x221, 0x22, 3}, {0x81, 0x1, 1},    {0x201, 0x22, 3}, {0x1201, 0x22, 1},
                               {0x209, 0x22, 5}, {0x201, 0x122, 3}, {0x204, 0x22, 4}};
  ASSERT_EQ(vmas.size(), std::size(expected));
  for (size_t i = 0; i < vmas.size(); ++i) {
    EXPECT_EQ(vmas[i].status, expected[i].status) << describe(vmas[i]);
    EXPECT_EQ(vmas[i].flags, expected[i].flags) << describe(vmas[i]);
    EXPECT_EQ(vmas[i].prot, expected[i].prot) << describe(vmas[i]);
    EXPECT_EQ(vmas[i].madv, 0u);
    EXPECT_EQ(vmas[i].shmid, 0u);
  }
  EXPECT_EQ(vmas[1].pgoff_bytes, 0x2000u);
  EXPECT_TRUE(vmas[2].was_writable);
  EXPECT_FALSE(vmas[1].was_writable);
  // Both vvar ranges in one.
  EXPECT_EQ(vmas[7].size_bytes(), 0x6000u);
  EXPECT_EQ(vmas[7].mapping, 7u);
  EXPECT_EQ(vmas[8].mapping, 9u);
  EXPECT_TRUE(vmas[8].stores_pages());
  EXPECT_FALSE(vmas[7].stores_pages() || vmas[10].stores_pages() || vmas[5].stores_pages());
}

TEST(Classify, SharedMemory) {
  const Vma anon = classify_one(
      one("7f5d425ac000-7f5d425ad000 rw-s 00003000 00:01 1094 /dev/zero (deleted)", "rd wr sh mr mw me ms nr"));
  EXPECT_EQ(anon.status, 0x4081u);
  EXPECT_EQ(anon.flags, 0x4001u);
  EXPECT_EQ(anon.shmid, 0u);
  EXPECT_EQ(anon.pgoff_bytes, 0x3000u);
  EXPECT_EQ(anon.fdflags, uint32_t{O_RDWR});
  const Vma named =
      classify_one(one("7f5d425ac000-7f5d425ad000 rw-s 00000000 00:01 5 [anon_shmem:buffers]", "rd wr sh mr mw me ms"));
  EXPECT_EQ(named.status, 0x4081u);
  const Vma sealed = classify_one(one("1000-2000 r--s 00000000 00:01 7 /memfd:x (deleted)", "rd sh mr me ms"));
  EXPECT_EQ(sealed.status, 0x4081u);
  EXPECT_EQ(sealed.fdflags, uint32_t{O_RDWR});
  const Vma kept = classify_one(one("1000-2000 rw-p 00000000 00:01 7 /memfd:x (deleted)", "rd wr mr mw me ac"));
  EXPECT_EQ(kept.status, 0x4041u);
  EXPECT_TRUE(kept.stores_pages());

  const Vma deleted = classify_one(one("1000-2000 r-xp 00000000 fe:00 1 /usr/lib/libx.so (deleted)", "rd ex"));
  EXPECT_EQ(deleted.status, 0x41u);

  // What mprotect may still do tells how the file was opened.
  const Vma both = classify_one(one("1000-2000 r--s 00000000 fe:00 7 /srv/f", "rd sh mr mw me ms"));
  EXPECT_EQ(both.status, 0x81u);
  EXPECT_EQ(both.fdflags, uint32_t{O_RDWR});
  const Vma only_read = classify_one(one("1000-2000 r--s 00000000 fe:00 7 /srv/f", "rd mr me ms"));
  EXPECT_EQ(only_read.fdflags, uint32_t{O_RDONLY});
  const Vma priv = classify_one(one("1000-2000 rw-p 00000000 fe:00 7 /srv/f", "rd wr mr mw me ac"));
  EXPECT_EQ(priv.fdflags, uint32_t{O_RDONLY});
}

TEST(Classify, HugePages) {
  const Vma own = classify_one(one("40000000-40400000 rw-p 00000000 00:0f 1 /anon_hugepage (deleted)",
                                   "rd wr mr mw me de ht", "KernelPageSize:     2048 kB\n"));
  EXPECT_EQ(own.status, 0x201u);
  EXPECT_EQ(own.flags, 0x22u | 0x40000u | 21u << 26);
  EXPECT_TRUE(own.stores_pages());
  const Vma shared = classify_one(one("40000000-40400000 rw-s 00000000 00:0f 1 /anon_hugepage (deleted)",
                                      "rd wr sh mr mw me ms de ht", "KernelPageSize:     2048 kB\n"));
  EXPECT_EQ(shared.status, 0x4081u);
  EXPECT_EQ(shared.flags, 0x1u);
}

TEST(Classify, AttributesOfAreas) {
  const Vma vma =
      classify_one(one("1000-2000 rw-p 00000000 00:00 0 ", "rd wr mr mw me rr sr dc ac wf dd hg nh mg nr lo lf gd"));
  EXPECT_EQ(vma.madv, 1u << 1 | 1u << 2 | 1u << 10 | 1u << 12 | 1u << 14 | 1u << 15 | 1u << 16 | 1u << 18);
  EXPECT_EQ(vma.flags, 0x6122u);
  EXPECT_EQ(vma.lock_on_fault, true);
  EXPECT_TRUE(vma.is_locked() && !vma.sealed);
  EXPECT_TRUE(classify_one(one("1000-2000 rw-p 00000000 00:00 0 ", "rd wr sl")).sealed);
  const Vma droppable = classify_one(one("1000-2000 rw-p 00000000 00:00 0 ", "rd wr mr mw me nr wf dd dp"));
  EXPECT_EQ(droppable.flags, 0x4028u);
  EXPECT_EQ(droppable.status, 0x201u);
  EXPECT_FALSE(droppable.stores_pages());
}

TEST(Classify, AttachedSegments) {
  const Vma writable =
      classify_one(one("1000-2000 r--s 00003000 00:01 42 /SYSV5a00001f (deleted)", "rd sh mr mw me ms"));
  EXPECT_EQ(writable.status, 0x501u);
  EXPECT_EQ(writable.shmid, 42u);
  EXPECT_EQ(writable.pgoff_bytes, 0x3000u);
  EXPECT_EQ(writable.fdflags, uint32_t{O_RDWR});
  EXPECT_TRUE(writable.is_segment() && !writable.is_file() && !writable.is_nameless_object());
  const Vma read_only = classify_one(one("1000-2000 r--s 00000000 00:01 0 /SYSV00000000 (deleted)", "rd mr me ms"));
  EXPECT_EQ(read_only.fdflags, uint32_t{O_RDONLY});
}

TEST(Classify, ARingIsASharedMappingOfItsFile) {
  const Vma ring =
      classify_one(one("1000-2000 rw-s 10000000 00:0f 1 anon_inode:[io_uring]", "rd wr sh mr mw me ms de mm"));
  EXPECT_EQ(ring.status, vma_status::regular | vma_status::file_shared);
  EXPECT_EQ(ring.pgoff_bytes, 0x10000000u);
  EXPECT_FALSE(ring.stores_pages());
}

TEST(Classify, WhatCannotBeSavedIsNamedWithARemedy) {
  const Mapping refused[] = {
      one("1000-2000 rw-p 00000000 00:01 1 /SYSV00000000 (deleted)", "rd wr"),
      one("1000-2000 rw-s 00000000 00:01 1 /[aio] (deleted)", "rd wr"),
      one("1000-2000 rw-s 00000000 00:01 1 /secretmem (deleted)", "rd wr lo"),
      one("1000-2000 rw-p 00000000 00:0f 1 anon_inode:[io_uring]", "rd wr"),
      one("1000-2000 rw-s 00000000 00:0f 1 anon_inode:[perf_event]", "rd wr"),
      one("1000-2000 rw-s 00000000 00:0f 1 socket:[4711]", "rd wr"),
      one("1000-2000 --xp 00000000 00:00 0 [uprobes]", "ex"),
      one("1000-2000 rw-p 00000000 00:00 0 [whatever]", "rd wr"),
      one("1000-2000 rw-s 00000000 00:06 9 /dev/mem", "rd wr pf io"),
      one("1000-2000 rw-p 00000000 00:00 0 ", "rd wr ss"),
      one("1000-2000 rw-p 00000000 00:00 0 ", "rd wr um"),
      one("1000-2000 rw-p 00000000 00:00 0 ", "rd wr uw"),
      one("1000-2000 rw-s 00000000 fe:00 7 /srv/f", "rd wr sh gu"),
      one("1000-2000 rw-p 00000000 00:00 0 ", "rd wr", "ProtectionKey:         3\n"),
  };
  for (const Mapping& m : refused) {
    try {
      const Vma vma = classify_one(m);
      ADD_FAILURE() << "accepted: " << m.name << " as " << describe(vma);
    } catch (const Error& e) {
      EXPECT_EQ(e.reason(), Reason::UNSUPPORTED_MAPPING) << m.name;
      EXPECT_NE(e.object().find("1000-2000"), std::string::npos);
      EXPECT_NE(e.object().find(m.name), std::string::npos);
      EXPECT_FALSE(e.remedy().empty());
    }
  }
}

TEST(Classify, WhatOnlyLooksOdd) {
  // The kernel gives memory that may only be executed a key of its own.
  EXPECT_NO_THROW(classify_one(one("1000-2000 --xp 00000000 00:00 0 ", "ex", "ProtectionKey:         1\n")));
  EXPECT_NO_THROW(classify_one(one("1000-2000 rw-p 00000000 00:00 0 [anon:arena]", "rd wr")));
  EXPECT_NO_THROW(classify_one(one("1000-2000 rw-p 00000000 00:00 0 ", "rd wr gu zz")));
  EXPECT_NO_THROW(classify_one(one("1000-2000 rw-p 00000000 fe:00 3 /memfd:is a file", "rd wr")));
}

TEST(Classify, ThisProcess) {
  const StoppedChild child([] {});
  const std::vector<Mapping> smaps = child.smaps();
  const std::vector<Vma> vmas = classify(smaps);
  ASSERT_FALSE(vmas.empty());
  for (const Vma& vma : vmas) EXPECT_EQ(vma.start, smaps.at(vma.mapping).start);
}

TEST(Classify, FlagsOfRealMappings) {
  char* base = reserve_pages(8);
  const size_t page = page_size_bytes();
  const StoppedChild child([&] {
    map_pages(base + page, 1, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
    map_pages(base + 3 * page, 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN);
    map_pages(base + 5 * page, 1);
    ::madvise(base + 5 * page, page, MADV_DONTFORK);
    ::mprotect(base + 5 * page, page, PROT_READ);
  });
  const std::vector<Vma> vmas = child.areas(base + page, 6 * page);
  ASSERT_GE(vmas.size(), 5u);
  EXPECT_EQ(vmas[0].status, 0x4081u);
  EXPECT_EQ(vmas[2].flags, 0x122u);
  EXPECT_EQ(vmas[4].madv, 1u << MADV_DONTFORK);
  EXPECT_EQ(vmas[4].prot, 1u);
}

// ---- records ----

pb::mm_entry image_of(std::span<const Vma> vmas) {
  pb::mm_entry mm;
  for (const Vma& vma : vmas) encode(vma, *mm.add_vmas());
  return mm;
}

TEST(VmaRecord, RoundTrip) {
  std::vector<Vma> vmas = classify(parse_smaps(sleep_smaps));
  vmas[4].madv = 1u << 14;
  vmas[0].shmid = 12;
  pb::mm_entry mm = image_of(vmas);
  encode_guard({0x55ec57394000, 0x55ec57395000}, *mm.add_vmas());
  for (const pb::vma_entry& entry : mm.vmas()) EXPECT_EQ(entry.fd(), -1);
  EXPECT_FALSE(mm.vmas(0).has_madv());
  EXPECT_TRUE(mm.vmas(0).has_fdflags());
  EXPECT_FALSE(mm.vmas(4).has_fdflags());
  for (Vma& vma : vmas) vma.mapping = 0, vma.was_writable = false, vma.lock_on_fault.reset();
  const VmaList list = decode_vmas(mm, "mm-1.img");
  EXPECT_EQ(list.areas, vmas);
  EXPECT_EQ(list.guards, (std::vector<AddressRange>{{0x55ec57394000, 0x55ec57395000}}));
}

Vma plain(uint64_t start, uint64_t end) {
  Vma vma;
  vma.start = start, vma.end = end, vma.prot = PROT_READ, vma.flags = MAP_PRIVATE | MAP_ANONYMOUS;
  vma.status = vma_status::regular | vma_status::anon_private;
  return vma;
}

template <class Change>
Reason reason_of(Change&& change) {
  std::vector<Vma> vmas = {plain(0x10000, 0x20000), plain(0x20000, 0x30000)};
  change(vmas);
  return error_of([&] { decode_vmas(image_of(vmas), "mm-1.img"); }).reason();
}

TEST(VmaRecord, BadRecordsAreRefused) {
  using V = std::vector<Vma>;
  EXPECT_EQ(reason_of([](V& v) { v[1].start = 0x1f000; }), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(reason_of([](V& v) { std::swap(v[0], v[1]); }), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(reason_of([](V& v) { v[1].end = v[1].start; }), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(reason_of([](V& v) { v[1].end += 1; }), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(reason_of([](V& v) { v[1].pgoff_bytes = ~uint64_t{0xfff}; }), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(reason_of([](V& v) { v[1].prot = 8; }), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(reason_of([](V& v) { v[1].status = 1; }), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(reason_of([](V& v) { v[1].status |= vma_status::file_private; }), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(reason_of([](V& v) { v[1].flags = MAP_SHARED | MAP_ANONYMOUS; }), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(reason_of([](V& v) { v[1].status = 0x801; }), Reason::IMAGE_UNSUPPORTED);
  EXPECT_EQ(reason_of([](V& v) { v[1].status = 0x2000; }), Reason::IMAGE_UNSUPPORTED);
  EXPECT_EQ(reason_of([](V& v) { v[1].flags |= MAP_NONBLOCK; }), Reason::IMAGE_UNSUPPORTED);
}

TEST(VmaRecord, WhatIsDerivedFromPages) {
  Vma relro = plain(0x10000, 0x12000);
  EXPECT_FALSE(maps_writable_first(relro, 0));
  EXPECT_TRUE(maps_writable_first(relro, 1));
  relro.prot |= PROT_WRITE;
  EXPECT_FALSE(maps_writable_first(relro, 1));
  EXPECT_FALSE(locks_on_fault(relro, 1));
  relro.flags |= MAP_LOCKED;
  EXPECT_TRUE(locks_on_fault(relro, 1));
  EXPECT_FALSE(locks_on_fault(relro, 2));
}

}  // namespace
}  // namespace stasis
