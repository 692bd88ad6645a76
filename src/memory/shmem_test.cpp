#include "memory/shmem.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstring>

#include "base/error.h"
#include "memory/block_io.h"
#include "memory/page_dump.h"
#include "memory/test_child.h"

namespace stasis {
namespace {

const uint64_t page = page_size_bytes();

bool may_open_map_files() {
  try {
    shmem_create({page, false});
    return true;
  } catch (const Error& e) {
    return e.reason() != Reason::NO_PRIVILEGE;
  }
}

#define NEEDS_MAP_FILES() \
  if (!may_open_map_files()) GTEST_SKIP() << "map_files needs CAP_CHECKPOINT_RESTORE in the initial user namespace"

std::string page_of(int fd, uint64_t index) {
  std::string bytes(page, '\0');
  read_whole(fd, bytes.data(), page, index * page, "object", Reason::SYSTEM);
  return bytes;
}

TEST(Shmem, DataRangesOfASparseFile) {
  const Fd object(::memfd_create("object", MFD_CLOEXEC));
  EXPECT_TRUE(data_ranges(object.get(), "object").empty());
  ASSERT_EQ(::ftruncate(object.get(), static_cast<off_t>(100 * page)), 0);
  EXPECT_TRUE(data_ranges(object.get(), "object").empty());
  for (uint64_t i : {0u, 10u, 11u, 99u}) write_whole(object.get(), "x", 1, i * page, "object", Reason::SYSTEM);
  EXPECT_EQ(data_ranges(object.get(), "object"),
            (std::vector<AddressRange>{{0, page}, {10 * page, 12 * page}, {99 * page, 100 * page}}));
}

TEST(Shmem, NeedIsTheFurthestMappingOrPage) {
  Vma vma;
  vma.start = 0x10000, vma.end = 0x12000, vma.pgoff_bytes = 0x5000, vma.shmid = 7;
  vma.status = vma_status::regular | vma_status::anon_shared, vma.flags = MAP_SHARED | MAP_ANONYMOUS;
  Vma other = vma;
  other.shmid = 8, other.pgoff_bytes = 0x50000;
  SharedNeed need;
  add_need(need, 7, std::vector<Vma>{vma, other});
  EXPECT_EQ(need.size_bytes, 0x7000u);
  EXPECT_FALSE(need.noreserve);
  vma.flags |= MAP_NORESERVE;
  add_need(need, 7, std::vector<Vma>{vma});
  EXPECT_TRUE(need.noreserve);
}

// An object of a task, its mapping gone in part, is dumped, made again, and looks the same from outside.
TEST(Shmem, DumpAndRestore) {
  NEEDS_MAP_FILES();
  char* base = reserve_pages(64);
  const StoppedChild child([&] {
    map_pages(base, 32, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
    for (size_t i : {1u, 5u, 30u}) std::memset(base + i * page, 'a' + static_cast<int>(i % 26), page);
    ::munmap(base + 16 * page, 16 * page);
    ::mremap(base + 4 * page, 0, 2 * page, MREMAP_MAYMOVE | MREMAP_FIXED, base + 40 * page);
  });
  const std::vector<Vma> vmas = child.areas(base, 64 * page);
  const Fd object = open_mapped(child.proc(), vmas.at(0).start, vmas.at(0).end, "the object");

  ImageStore store = ImageStore::in_memory();
  PagemapWriter writer(store, ImageKind::SHMEM_PAGEMAP, 7);
  PageSnapshot snapshot(1 << 20);
  snapshot.store(snapshot.copy_object(object.get(), "the object"), writer);
  snapshot.finish();
  writer.close();

  const PagemapReader pages = PagemapReader::open(store, ImageKind::SHMEM_PAGEMAP, 7).value();
  const SharedNeed need{.size_bytes = 32 * page};
  const Fd copy = shmem_create(need);
  shmem_fill(copy.get(), pages, "the copy");
  EXPECT_EQ(data_ranges(copy.get(), "the copy"), data_ranges(object.get(), "the object"));
  for (uint64_t i : {0u, 1u, 5u, 30u}) EXPECT_EQ(page_of(copy.get(), i), page_of(object.get(), i));

  char* mapped = reserve_pages(4);
  const StoppedChild restored([&] { map_pages(mapped, 2, PROT_READ | PROT_WRITE, MAP_SHARED, copy.get(), 0x4000); });
  const Vma again = restored.areas(mapped, 2 * page).at(0);
  EXPECT_EQ(again.status, 0x4081u);
  EXPECT_EQ(again.pgoff_bytes, 0x4000u);
  EXPECT_EQ(restored.read(mapped + page, page), page_of(copy.get(), 5));
}

}  // namespace
}  // namespace stasis
