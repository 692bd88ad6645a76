#include "memory/page_dump.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <cstring>
#include <map>

#include "base/error.h"
#include "memory/block_io.h"
#include "memory/shmem.h"
#include "memory/test_child.h"

namespace stasis {
namespace {

const uint64_t page = page_size_bytes();

// What the images hold at each stored page: content and flags.
struct StoredPage {
  std::string bytes;
  uint32_t flags;
};

std::map<uint64_t, StoredPage> stored(const PagemapReader& reader) {
  std::map<uint64_t, StoredPage> pages;
  for (const StoredRange& range : reader.ranges()) {
    for (uint64_t i = 0; i < range.range.nr_pages; ++i) {
      StoredPage stored_page{std::string(page, '\0'), range.range.flags};
      read_whole(reader.pages_fd(), stored_page.bytes.data(), page, range.pages_offset_bytes + i * page, "pages",
                 Reason::IMAGE_TRUNCATED);
      pages.emplace(range.range.vaddr + i * page, std::move(stored_page));
    }
  }
  return pages;
}

class DumpTask : public testing::Test {
 protected:
  // Dumps the areas in [base, base + pages).
  std::map<uint64_t, StoredPage> dump(const StoppedChild& child, const char* base, size_t pages,
                                      uint64_t budget_bytes) {
    const std::vector<Vma> vmas = child.areas(base, pages * page);
    return dump(child, vmas, budget_bytes);
  }
  std::map<uint64_t, StoredPage> dump(const StoppedChild& child, std::span<const Vma> vmas, uint64_t budget_bytes) {
    ImageStore store = ImageStore::in_memory();
    PagemapWriter writer(store, ImageKind::PAGEMAP, 1);
    const Fd memory = child.open("mem", O_RDONLY);
    const Fd pagemap = child.open("pagemap", O_RDONLY);
    const PageScan scan = scan_pages(pagemap.get(), vmas);
    PageSnapshot snapshot(budget_bytes, 2);
    TaskPages task{child.pid(), memory.get(), pagemap.get(), false, "the child", vmas, &scan};
    task.stack_pointers = stack_pointers_;
    task.vdso = vdso_;
    snapshot.store(snapshot.copy(task), writer);
    snapshot.finish();
    writer.close();
    stats_ = snapshot.stats();
    std::optional<PagemapReader> reader = PagemapReader::open(store, ImageKind::PAGEMAP, 1);
    return stored(reader.value());
  }

  std::vector<uint64_t> stack_pointers_;
  std::vector<std::byte> vdso_;
  PageDumpStats stats_;
};

uint64_t address(const void* p) {
  return reinterpret_cast<uint64_t>(p);
}

// Every protection, and a page of each that was written before.
TEST_F(DumpTask, PagesOfEveryProtection) {
  char* base = reserve_pages(16);
  const StoppedChild child([&] {
    map_pages(base, 16);
    for (size_t i = 0; i < 16; ++i) std::memset(base + i * page, 'a' + static_cast<int>(i), page);
    for (size_t i = 0; i < 16; ++i) ::mprotect(base + i * page, page, static_cast<int>(i % 8));
  });
  for (uint64_t budget : {uint64_t{0}, uint64_t{1} << 20}) {
    const auto pages = dump(child, base, 16, budget);
    ASSERT_EQ(pages.size(), 16u);
    for (size_t i = 0; i < 16; ++i) {
      const StoredPage& p = pages.at(address(base) + i * page);
      EXPECT_EQ(p.bytes, std::string(page, static_cast<char>('a' + i))) << i << " with budget " << budget;
      EXPECT_EQ(p.flags, kPagePresent | kPageLazy);
    }
    EXPECT_EQ(stats_.scanned_pages, 16u);
    EXPECT_EQ(stats_.written_pages, 16u);
  }
}

TEST_F(DumpTask, ProtectionThatChangedAfterTheListWasMade) {
  char* base = reserve_pages(4);
  const StoppedChild child([&] {
    map_pages(base, 4);
    for (size_t i = 0; i < 4; ++i) std::memset(base + i * page, 'a' + static_cast<int>(i), page);
    ::mprotect(base + page, page, PROT_NONE);
  });
  std::vector<Vma> vmas = child.areas(base, 4 * page);
  ASSERT_EQ(vmas.size(), 3u);
  for (Vma& vma : vmas) vma.prot = PROT_READ;
  const auto pages = dump(child, vmas, 0);
  ASSERT_EQ(pages.size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(pages.at(address(base) + i * page).bytes, std::string(page, static_cast<char>('a' + i)));
  }
}

TEST_F(DumpTask, LazyIsWhatMayComeLater) {
  char* base = reserve_pages(16);
  char file_name[] = "/tmp/stasis-dump-XXXXXX";
  const Fd file(::mkstemp(file_name));
  ::unlink(file_name);
  ASSERT_EQ(::ftruncate(file.get(), static_cast<off_t>(page)), 0);
  const StoppedChild child([&] {
    map_pages(base, 5);
    std::memset(base, 1, 5 * page);
    map_pages(base + 8 * page, 1, PROT_READ | PROT_WRITE, MAP_PRIVATE, file.get());
    base[8 * page] = 1;
    map_pages(base + 10 * page, 1);
    base[10 * page] = 1;
    ::syscall(SYS_mlock, base + 10 * page, page);  // the sanitizers make mlock() do nothing
  });
  stack_pointers_ = {address(base) + 2 * page + 100, address(base) + 2 * page + 8, address(base) + 12 * page};
  const auto pages = dump(child, base, 16, 0);
  std::vector<uint32_t> flags;
  flags.reserve(pages.size());
  for (const auto& [vaddr, p] : pages) flags.push_back(p.flags);
  EXPECT_EQ(flags, (std::vector<uint32_t>{6, 6, 4, 6, 6, 4, 4}));
}

TEST_F(DumpTask, TheVdsoIsTheCallersCopy) {
  const StoppedChild child([] {});
  std::vector<Vma> vmas;
  for (const Vma& vma : classify(child.smaps())) {
    if (vma.has(vma_status::vdso)) vmas.push_back(vma);
  }
  if (vmas.empty()) GTEST_SKIP() << "this process has no vdso";
  vdso_.assign(vmas[0].size_bytes(), std::byte{'v'});
  const auto pages = dump(child, vmas, 0);
  ASSERT_EQ(pages.size(), vmas[0].size_bytes() / page);
  EXPECT_EQ(pages.begin()->second.bytes, std::string(page, 'v'));
  EXPECT_EQ(pages.begin()->second.flags, kPagePresent);
  vdso_.pop_back();
  EXPECT_THROW(dump(child, vmas, 0), Error);
}

// Enough for several threads and blocks, with fragments of all sizes.
TEST_F(DumpTask, MuchMemoryOnSeveralThreads) {
  constexpr size_t pages_count = 12000;
  char* base = reserve_pages(pages_count);
  const StoppedChild child([&] {
    map_pages(base, pages_count);
    for (size_t i = 0; i < pages_count; ++i) {
      if (i % 97 != 0) std::memcpy(base + i * page + 8, &i, sizeof(i));
    }
    ::mprotect(base + 5000 * page, 20 * page, PROT_NONE);
  });
  for (uint64_t budget : {uint64_t{0}, uint64_t{64} << 20}) {
    const auto pages = dump(child, base, pages_count, budget);
    // Huge pages, where they are used for everything, hold the untouched pages too.
    ASSERT_GE(pages.size(), pages_count - pages_count / 97 - 1);
    for (const auto& [vaddr, p] : pages) {
      const size_t i = (vaddr - address(base)) / page;
      size_t found;
      std::memcpy(&found, p.bytes.data() + 8, sizeof(found));
      ASSERT_EQ(found, i % 97 != 0 ? i : 0);
    }
  }
}

TEST_F(DumpTask, ATaskThatIsGone) {
  char* base = reserve_pages(1);
  map_pages(base, 1);
  base[0] = 1;
  ImageStore store = ImageStore::in_memory();
  PagemapWriter writer(store, ImageKind::PAGEMAP, 1);
  PageSnapshot snapshot(0);
  std::vector<Vma> vmas;
  PageScan scan;
  Fd memory, pagemap;
  pid_t pid = 0;
  {
    const StoppedChild child([] {});
    vmas = child.areas(base, page);
    memory = child.open("mem", O_RDONLY);
    pagemap = child.open("pagemap", O_RDONLY);
    scan = scan_pages(pagemap.get(), vmas);
    pid = child.pid();
  }
  try {
    snapshot.store(snapshot.copy({pid, memory.get(), pagemap.get(), false, "the child", vmas, &scan}), writer);
    ADD_FAILURE() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.reason(), Reason::TASK_VANISHED);
  }
}

TEST(DumpObject, OnlyTouchedPages) {
  const Fd object(::memfd_create("object", MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(object.get(), static_cast<off_t>(1000 * page)), 0);
  for (uint64_t i : {3u, 4u, 900u}) {
    write_whole(object.get(), std::string(page, static_cast<char>('a' + i % 26)).data(), page, i * page, "object",
                Reason::SYSTEM);
  }
  ImageStore store = ImageStore::in_memory();
  PagemapWriter writer(store, ImageKind::SHMEM_PAGEMAP, 7);
  PageSnapshot snapshot(0);
  snapshot.store(snapshot.copy_object(object.get(), "object"), writer);
  snapshot.finish();
  writer.close();
  EXPECT_EQ(snapshot.stats().shared_scanned_pages, 1000u);
  EXPECT_EQ(snapshot.stats().shared_written_pages, 3u);
  const auto pages = stored(PagemapReader::open(store, ImageKind::SHMEM_PAGEMAP, 7).value());
  ASSERT_EQ(pages.size(), 3u);
  EXPECT_EQ(pages.at(900 * page).bytes, std::string(page, static_cast<char>('a' + 900 % 26)));
  EXPECT_EQ(pages.at(3 * page).flags, kPagePresent);
}

}  // namespace
}  // namespace stasis
