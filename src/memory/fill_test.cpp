#include "memory/fill.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstring>
#include <map>

#include "base/error.h"
#include "kernel/uapi.h"
#include "memory/block_io.h"
#include "memory/page_scan.h"
#include "memory/test_child.h"

namespace stasis {
namespace {

const uint64_t page = page_size_bytes();

uint64_t address(const void* p) {
  return reinterpret_cast<uint64_t>(p);
}

// A page map with one letter a page.
PagemapReader image(ImageStore& store, uint64_t id, const char* base, const std::map<size_t, char>& letters,
                    uint32_t flags = kPagePresent) {
  PagemapWriter writer(store, ImageKind::PAGEMAP, id);
  for (const auto& [index, letter] : letters) {
    const uint64_t offset = writer.present_pages() * page;
    if ((flags & kPagePresent) != 0) {
      write_whole(writer.pages_fd(), std::string(page, letter).data(), page, offset, "pages", Reason::IMAGE_WRITE);
    }
    writer.add({address(base) + index * page, 1, flags});
  }
  writer.close();
  return PagemapReader::open(store, ImageKind::PAGEMAP, id).value();
}

Vma anonymous(const char* start, size_t pages, uint32_t prot = PROT_READ | PROT_WRITE) {
  Vma vma;
  vma.start = address(start), vma.end = vma.start + pages * page;
  vma.prot = prot, vma.flags = MAP_PRIVATE | MAP_ANONYMOUS;
  vma.status = vma_status::regular | vma_status::anon_private;
  return vma;
}

std::string letters_of(const StoppedChild& child, const char* base, size_t pages) {
  std::string letters;
  for (size_t i = 0; i < pages; ++i) {
    const std::string bytes = child.read(base + i * page, page);
    EXPECT_EQ(bytes, std::string(page, bytes[0])) << "page " << i;
    letters.push_back(bytes[0] == '\0' ? '.' : bytes[0]);
  }
  return letters;
}

TEST(Fill, AreasOfEveryProtection) {
  char* base = reserve_pages(12);
  const StoppedChild child([&] {
    map_pages(base, 4);
    map_pages(base + 4 * page, 2, PROT_READ);
    map_pages(base + 6 * page, 2, PROT_NONE);
    map_pages(base + 8 * page, 4);
  });
  ImageStore store = ImageStore::in_memory();
  const PagemapReader pages =
      image(store, 1, base, {{0, 'a'}, {1, 'b'}, {3, 'd'}, {4, 'e'}, {5, 'f'}, {7, 'h'}, {8, 'i'}, {11, 'l'}});
  const std::vector<Vma> areas = {anonymous(base, 4), anonymous(base + 4 * page, 2, PROT_READ),
                                  anonymous(base + 6 * page, 2, PROT_NONE), anonymous(base + 8 * page, 4)};
  const FillPlan plan(pages, areas, "pagemap-1.img");
  EXPECT_EQ(plan.pages(), 8u);
  EXPECT_EQ(plan.stored_pages(0), 3u);
  EXPECT_EQ(plan.stored_pages(2), 1u);
  const Fd memory = child.open("mem", O_RDWR);
  EXPECT_EQ(plan.fill({child.pid(), [&] { return memory.get(); }, "the child"}).written_pages, 8u);
  EXPECT_EQ(letters_of(child, base, 12), "ab.def.hi..l");
}

TEST(Fill, MuchOnSeveralThreads) {
  constexpr size_t count = 9000;
  char* base = reserve_pages(count);
  const StoppedChild child([&] { map_pages(base, count); });
  ImageStore store = ImageStore::in_memory();
  std::map<size_t, char> letters;
  for (size_t i = 0; i < count; ++i) {
    if (i % 61 != 0) letters[i] = static_cast<char>('a' + i % 23);
  }
  const PagemapReader pages = image(store, 1, base, letters, kPagePresent | kPageLazy);
  const FillPlan plan(pages, std::vector<Vma>{anonymous(base, count)}, "pagemap-1.img");
  const Fd memory = child.open("mem", O_RDWR);
  plan.fill({child.pid(), [&] { return memory.get(); }, "the child"}, 2);
  const std::string all = child.read(base, count * page);
  for (size_t i = 0; i < count; ++i) ASSERT_EQ(all[i * page + 7], letters.contains(i) ? letters[i] : '\0') << i;
}

TEST(Fill, BadPageMapsAreRefused) {
  char* base = reserve_pages(8);
  const auto reason_of = [&](const std::map<size_t, char>& letters, uint32_t flags, std::vector<Vma> areas) {
    ImageStore store = ImageStore::in_memory();
    const PagemapReader pages = image(store, 1, base, letters, flags);
    try {
      const FillPlan plan(pages, areas, "pagemap-1.img");
    } catch (const Error& e) {
      return e.reason();
    }
    return Reason::INTERNAL;
  };
  const std::vector<Vma> areas = {anonymous(base, 2), anonymous(base + 4 * page, 2)};
  EXPECT_EQ(reason_of({{1, 'a'}, {4, 'b'}}, kPagePresent, areas), Reason::INTERNAL);
  EXPECT_EQ(reason_of({{2, 'a'}}, kPagePresent, areas), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(reason_of({{1, 'a'}, {2, 'a'}}, kPagePresent, areas), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(reason_of({{6, 'a'}}, kPagePresent, areas), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(reason_of({{1, 'a'}}, kPageInParent, areas), Reason::IMAGE_UNSUPPORTED);
  EXPECT_EQ(reason_of({{1, 'a'}}, kPageLazy, areas), Reason::IMAGE_UNSUPPORTED);
  std::vector<Vma> shared = areas;
  shared[0].flags = MAP_SHARED | MAP_ANONYMOUS;
  EXPECT_EQ(reason_of({{1, 'a'}}, kPagePresent, shared), Reason::IMAGE_CORRUPT);
}

TEST(Fill, AnAreaThatIsNotThere) {
  char* base = reserve_pages(2);
  const StoppedChild child([&] { ::munmap(base, 2 * page); });
  ImageStore store = ImageStore::in_memory();
  const PagemapReader pages = image(store, 1, base, {{0, 'a'}});
  const FillPlan plan(pages, std::vector<Vma>{anonymous(base, 2)}, "pagemap-1.img");
  const Fd memory = child.open("mem", O_RDWR);
  try {
    plan.fill({child.pid(), [&] { return memory.get(); }, "the child"});
    ADD_FAILURE() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.reason(), Reason::RESTORE_CALL_FAILED);
    EXPECT_EQ(e.object(), "the child");
  }
}

// Mapped by both, so "exclusive" is not set for the page.
bool is_exclusive(const StoppedChild& child, const char* at) {
  uint64_t entry = 0;
  const Fd pagemap = child.open("pagemap", O_RDONLY);
  EXPECT_EQ(::pread(pagemap.get(), &entry, 8, static_cast<off_t>(address(at) / page * 8)), 8);
  EXPECT_NE(entry & uapi::pm_present, 0u);
  return (entry & uapi::pm_mmap_exclusive) != 0;
}

TEST(FillChild, KeepsEqualPagesSharedWithTheParent) {
  char* base = reserve_pages(16);
  map_pages(base, 16);
  ::madvise(base, 16 * page, MADV_NOHUGEPAGE);
  // This process stands for the parent: pages 0-5 and 8-13.
  const std::map<size_t, char> parents = {{0, 'a'}, {1, 'b'}, {2, 'c'},  {3, 'd'}, {5, 'f'},
                                          {8, 'i'}, {9, 'j'}, {10, 'k'}, {12, 'm'}};
  for (const auto& [index, letter] : parents) std::memset(base + index * page, letter, page);
  const StoppedChild child([&] {
    map_pages(base + 8 * page, 8);  // mapped anew: not inherited
  });
  const std::map<size_t, char> childs = {{0, 'a'}, {1, 'X'}, {3, 'd'}, {4, 'Y'}, {8, 'i'}, {11, 'l'}, {12, 'Z'}};

  ImageStore store = ImageStore::in_memory();
  const PagemapReader parent_pages = image(store, 1, base, parents);
  const PagemapReader child_pages = image(store, 2, base, childs);
  const std::vector<Vma> areas = {anonymous(base, 16)};
  const FillPlan parent(parent_pages, areas, "pagemap-1.img");
  const FillPlan plan(child_pages, areas, "pagemap-2.img");
  const std::vector<AddressRange> inherited = {{address(base), address(base) + 8 * page}};
  const Fd memory = child.open("mem", O_RDWR);
  const FillPlan::ChildFill result =
      plan.fill_child({child.pid(), [&] { return memory.get(); }, "the child"}, parent, inherited);

  EXPECT_EQ(result.stats.kept_pages, 2u);
  EXPECT_EQ(result.stats.written_pages, 5u);
  const uint64_t start = address(base);
  EXPECT_EQ(result.drop,
            (std::vector<AddressRange>{{start + 2 * page, start + 3 * page}, {start + 5 * page, start + 6 * page}}));
  // 'c' and 'f' go when the child drops them.
  EXPECT_EQ(letters_of(child, base, 16), "aXcdYf..i..lZ...");
  EXPECT_FALSE(is_exclusive(child, base));
  EXPECT_FALSE(is_exclusive(child, base + 3 * page));
  EXPECT_TRUE(is_exclusive(child, base + page));
}

TEST(FillChild, WithoutAnyPageOfItsOwn) {
  char* base = reserve_pages(4);
  map_pages(base, 4);
  const StoppedChild child([] {});
  ImageStore store = ImageStore::in_memory();
  const PagemapReader parent_pages = image(store, 1, base, {{0, 'a'}, {1, 'b'}});
  const PagemapReader child_pages = image(store, 2, base, {});
  const std::vector<Vma> areas = {anonymous(base, 4)};
  const FillPlan parent(parent_pages, areas, "1");
  const FillPlan plan(child_pages, areas, "2");
  const std::vector<AddressRange> inherited = {{address(base) + page, address(base) + 4 * page}};
  const auto result = plan.fill_child({child.pid(), {}, "the child"}, parent, inherited);
  EXPECT_EQ(result.drop, (std::vector<AddressRange>{{address(base) + page, address(base) + 2 * page}}));
}

}  // namespace
}  // namespace stasis
