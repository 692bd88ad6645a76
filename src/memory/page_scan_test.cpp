#include "memory/page_scan.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstring>

#include "kernel/process.h"
#include "memory/test_child.h"

namespace stasis {
namespace {

const uint64_t page = page_size_bytes();

// Page numbers relative to `base`.
std::vector<uint64_t> stored_pages(const PageScan& scan, const char* base) {
  std::vector<uint64_t> pages;
  for (const PageRun& run : scan.runs) {
    for (uint64_t i = 0; i < run.nr_pages; ++i) {
      pages.push_back((run.start - reinterpret_cast<uint64_t>(base)) / page + i);
    }
  }
  return pages;
}

class ScanPages : public testing::TestWithParam<ScanMethod> {};

TEST_P(ScanPages, OnlyWhatCannotBeHadElsewhere) {
  char* base = reserve_pages(64);
  char file_name[] = "/tmp/stasis-scan-XXXXXX";
  const Fd file(::mkstemp(file_name));
  ::unlink(file_name);
  ASSERT_EQ(::ftruncate(file.get(), static_cast<off_t>(4 * page)), 0);
  const StoppedChild child([&] {
    map_pages(base, 8);
    base[1 * page] = 1;
    base[2 * page] = 1;
    base[5 * page] = 1;
    map_pages(base + 10 * page, 4, PROT_READ | PROT_WRITE, MAP_PRIVATE, file.get());
    base[11 * page] = 1;                           // written: ours
    static_cast<volatile char*>(base)[12 * page];  // only read: the file's
    map_pages(base + 20 * page, 2, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
    base[20 * page] = 1;
    map_pages(base + 30 * page, 2);
    base[31 * page] = 1;
    ::mprotect(base + 30 * page, 2 * page, PROT_NONE);
  });
  const std::vector<Vma> vmas = child.areas(base, 64 * page);
  const Fd pagemap = child.open("pagemap", O_RDONLY);
  const PageScan scan = scan_pages(pagemap.get(), vmas, GetParam());
  EXPECT_EQ(stored_pages(scan, base), (std::vector<uint64_t>{1, 2, 5, 11, 31}));
  EXPECT_EQ(scan.stored_pages, 5u);
  EXPECT_EQ(scan.scanned_pages, 62u);
  EXPECT_TRUE(scan.guards.empty());
  for (const PageRun& run : scan.runs) {
    EXPECT_LE(vmas.at(run.vma).start, run.start);
    EXPECT_GE(vmas.at(run.vma).end, run.start + run.nr_pages * page);
  }
}

TEST_P(ScanPages, RunsEndWithTheirArea) {
  char* base = reserve_pages(4);
  const StoppedChild child([&] {
    map_pages(base, 4);
    std::memset(base, 1, 4 * page);
    ::mprotect(base + page, page, PROT_READ);
  });
  const std::vector<Vma> vmas = child.areas(base, 4 * page);
  ASSERT_EQ(vmas.size(), 3u);
  const PageScan scan = scan_pages(child.open("pagemap", O_RDONLY).get(), vmas, GetParam());
  const uint64_t start = reinterpret_cast<uint64_t>(base);
  EXPECT_EQ(scan.runs, (std::vector<PageRun>{{0, start, 1}, {1, start + page, 1}, {2, start + 2 * page, 2}}));
}

TEST_P(ScanPages, GuardRegions) {
  constexpr int madv_guard_install = 102;
  char* base = reserve_pages(8);
  const StoppedChild child([&] {
    map_pages(base, 8);
    std::memset(base, 1, 8 * page);
    ::madvise(base + 2 * page, 3 * page, madv_guard_install);
  });
  map_pages(base, 1);
  if (::madvise(base, page, madv_guard_install) != 0) GTEST_SKIP() << "the kernel has no guard regions (Linux 6.13)";
  const PageScan scan = scan_pages(child.open("pagemap", O_RDONLY).get(), child.areas(base, 8 * page), GetParam());
  EXPECT_EQ(stored_pages(scan, base), (std::vector<uint64_t>{0, 1, 5, 6, 7}));
  const uint64_t start = reinterpret_cast<uint64_t>(base);
  EXPECT_EQ(scan.guards, (std::vector<AddressRange>{{start + 2 * page, start + 5 * page}}));
}

INSTANTIATE_TEST_SUITE_P(Methods, ScanPages, testing::Values(ScanMethod::BEST, ScanMethod::PAGEMAP_READS),
                         [](const auto& each) { return each.param == ScanMethod::BEST ? "Best" : "Reads"; });

bool has_scan_ioctl() {
  const Fd pagemap(::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
  uapi::pm_scan_arg arg;  // an empty range
  return pagemap_scan(pagemap.get(), arg) != -ENOTTY;
}

TEST(ScanPagesByIoctl, ZeroPagesAreNotStored) {
  char* base = reserve_pages(4);
  const StoppedChild child([&] {
    map_pages(base, 4);
    ::madvise(base, 4 * page, MADV_NOHUGEPAGE);
    static_cast<volatile char*>(base)[1 * page];
    base[2 * page] = 1;
  });
  const std::vector<Vma> vmas = child.areas(base, 4 * page);
  const Fd pagemap = child.open("pagemap", O_RDONLY);
  const PageScan by_reads = scan_pages(pagemap.get(), vmas, ScanMethod::PAGEMAP_READS);
  EXPECT_EQ(stored_pages(by_reads, base), (std::vector<uint64_t>{1, 2}));
  if (!has_scan_ioctl()) GTEST_SKIP() << "the kernel has no PAGEMAP_SCAN (Linux 6.7)";
  EXPECT_EQ(stored_pages(scan_pages(pagemap.get(), vmas), base), (std::vector<uint64_t>{2}));
}

TEST(ScanPagesByIoctl, ManyAreasCostFewCalls) {
  constexpr size_t areas = 3000;
  char* base = reserve_pages(2 * areas);
  const StoppedChild child([&] {
    for (size_t i = 0; i < areas; ++i) {
      map_pages(base + 2 * i * page, 1, i % 2 == 0 ? PROT_READ | PROT_WRITE : PROT_READ);
      if (i % 2 == 0) base[2 * i * page] = 1;
    }
  });
  const std::vector<Vma> vmas = child.areas(base, 2 * areas * page);
  ASSERT_GE(vmas.size(), 2 * areas - 1);
  const Fd pagemap = child.open("pagemap", O_RDONLY);
  const PageScan scan = scan_pages(pagemap.get(), vmas);
  EXPECT_EQ(scan.stored_pages, areas / 2);
  EXPECT_EQ(scan.runs, scan_pages(pagemap.get(), vmas, ScanMethod::PAGEMAP_READS).runs);
  if (!has_scan_ioctl()) GTEST_SKIP() << "the kernel has no PAGEMAP_SCAN (Linux 6.7)";
  EXPECT_LE(scan.calls, 3u);
}

TEST(ScanPagesByIoctl, MoreRegionsThanOneCallReturns) {
  constexpr size_t pages = 10000;
  char* base = reserve_pages(pages);
  const StoppedChild child([&] {
    map_pages(base, pages);
    ::madvise(base, pages * page, MADV_NOHUGEPAGE);
    for (size_t i = 0; i < pages; i += 2) base[i * page] = 1;
  });
  const PageScan scan = scan_pages(child.open("pagemap", O_RDONLY).get(), child.areas(base, pages * page));
  EXPECT_EQ(scan.stored_pages, pages / 2);
  EXPECT_EQ(scan.runs.size(), pages / 2);
}

}  // namespace
}  // namespace stasis
