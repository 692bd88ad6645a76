#include "memory/page_scan.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "base/error.h"
#include "base/page_size.h"
#include "kernel/process.h"
#include "kernel/uapi.h"

namespace stasis {

namespace {

constexpr size_t regions_per_call = 2048;
// A scan goes on through areas that are not asked for as long as they are small: a call costs as much as looking at
// some hundred pages. Holes between areas cost nothing.
constexpr uint64_t bridged_bytes = uint64_t{1} << 20;
constexpr size_t entries_per_read = 32768;

bool is_scanned(const Vma& vma) {
  return vma.stores_pages() && !vma.has(vma_status::vdso);
}

// Areas [first, last] of the list that one walk of the page tables covers.
struct Span {
  size_t first;
  size_t last;
};

std::vector<Span> spans_of(std::span<const Vma> vmas) {
  std::vector<Span> spans;
  uint64_t skipped_bytes = 0;
  for (size_t i = 0; i < vmas.size(); ++i) {
    if (!is_scanned(vmas[i])) {
      skipped_bytes += vmas[i].size_bytes();
      continue;
    }
    if (!spans.empty() && skipped_bytes <= bridged_bytes) {
      spans.back().last = i;
    } else {
      spans.push_back({i, i});
    }
    skipped_bytes = 0;
  }
  return spans;
}

// Sorts ascending ranges of pages into the areas they lie in.
class Collector {
 public:
  Collector(std::span<const Vma> vmas, PageScan& scan) : vmas_(vmas), scan_(scan) {}

  void add(uint64_t start, uint64_t end, bool guard) {
    while (at_ < vmas_.size() && vmas_[at_].end <= start) ++at_;
    for (size_t i = at_; i < vmas_.size() && vmas_[i].start < end; ++i) {
      if (!is_scanned(vmas_[i])) continue;
      const AddressRange part{std::max(start, vmas_[i].start), std::min(end, vmas_[i].end)};
      if (guard) {
        add_guard(part);
      } else {
        add_run(i, part);
      }
    }
  }

 private:
  void add_run(size_t vma, const AddressRange& part) {
    const uint64_t nr_pages = part.size_bytes() / page_bytes_;
    scan_.stored_pages += nr_pages;
    if (!scan_.runs.empty()) {
      PageRun& last = scan_.runs.back();
      if (last.vma == vma && last.start + last.nr_pages * page_bytes_ == part.start) {
        last.nr_pages += nr_pages;
        return;
      }
    }
    scan_.runs.push_back({vma, part.start, nr_pages});
  }

  void add_guard(const AddressRange& part) {
    if (!scan_.guards.empty() && scan_.guards.back().end == part.start) {
      scan_.guards.back().end = part.end;
    } else {
      scan_.guards.push_back(part);
    }
  }

  std::span<const Vma> vmas_;
  PageScan& scan_;
  size_t at_ = 0;
  uint64_t page_bytes_ = page_size_bytes();
};

[[noreturn]] void scan_failed(const AddressRange& range, int error_number) {
  throw Error(Reason::SYSTEM, fmt::format("cannot scan the pages at {:x}-{:x}", range.start, range.end))
      .error_number(error_number);
}

class IoctlScanner {
 public:
  explicit IoctlScanner(int pagemap_fd) : fd_(pagemap_fd), regions_(regions_per_call) {}

  // False when the kernel has no PAGEMAP_SCAN.
  bool scan(const AddressRange& range, Collector& collector, PageScan& result) {
    for (uint64_t at = range.start; at < range.end;) {
      uapi::pm_scan_arg arg = request(at, range.end);
      const long n = pagemap_scan(fd_, arg);
      ++result.calls;
      if (n == -ENOTTY) return false;
      if (n == -EINVAL && knows_guard_) {
        knows_guard_ = false;  // Linux before 6.16; nothing was scanned yet
        continue;
      }
      if (n < 0) scan_failed({at, range.end}, static_cast<int>(-n));
      for (size_t i = 0; i < static_cast<size_t>(n); ++i) {
        collector.add(regions_[i].start, regions_[i].end, (regions_[i].categories & uapi::page_is_guard) != 0);
      }
      // A walk that gets to the end leaves walk_end where the kernel last emptied its own buffer of 512 regions (seen
      // on 6.18), so walk_end counts only when the vector is full, and never below what was reported.
      if (static_cast<size_t>(n) < regions_.size()) return true;
      at = std::max<uint64_t>(arg.walk_end, regions_.back().end);
    }
    return true;
  }

 private:
  uapi::pm_scan_arg request(uint64_t start, uint64_t end) {
    uapi::pm_scan_arg arg;
    arg.start = start;
    arg.end = end;
    arg.vec = reinterpret_cast<uint64_t>(regions_.data());
    arg.vec_len = regions_.size();
    arg.category_inverted = arg.category_mask = uapi::page_is_pfnzero | uapi::page_is_file;
    // A guard page counts as swapped out too.
    arg.category_anyof_mask = uapi::page_is_present | uapi::page_is_swapped;
    // Whether present or swapped is of no interest: regions that differ in it become one.
    arg.return_mask = knows_guard_ ? uapi::page_is_guard : 0;
    return arg;
  }

  int fd_;
  std::vector<uapi::page_region> regions_;
  bool knows_guard_ = true;
};

void scan_by_reads(int pagemap_fd, const AddressRange& range, Collector& collector, PageScan& result) {
  const uint64_t page = page_size_bytes();
  std::vector<uint64_t> entries(entries_per_read);
  for (uint64_t at = range.start; at < range.end;) {
    const uint64_t wanted = std::min<uint64_t>((range.end - at) / page, entries.size());
    const ssize_t n = ::pread(pagemap_fd, entries.data(), wanted * sizeof(uint64_t),
                              static_cast<off_t>(at / page * sizeof(uint64_t)));
    ++result.calls;
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) scan_failed({at, range.end}, n < 0 ? errno : 0);
    for (size_t i = 0; i < static_cast<size_t>(n) / sizeof(uint64_t); ++i, at += page) {
      const uint64_t entry = entries[i];
      if ((entry & uapi::pm_guard_region) != 0) {
        collector.add(at, at + page, true);
      } else if ((entry & (uapi::pm_present | uapi::pm_swap)) != 0 && (entry & uapi::pm_file) == 0) {
        collector.add(at, at + page, false);
      }
    }
  }
}

}  // namespace

PageScan scan_pages(int pagemap_fd, std::span<const Vma> vmas, ScanMethod method) {
  PageScan result;
  for (const Vma& vma : vmas) {
    if (is_scanned(vma)) result.scanned_pages += vma.size_bytes() / page_size_bytes();
  }
  Collector collector(vmas, result);
  if (method == ScanMethod::BEST) {
    IoctlScanner scanner(pagemap_fd);
    const std::vector<Span> spans = spans_of(vmas);
    // A kernel that lacks the call says so at the first one.
    const bool done = std::all_of(spans.begin(), spans.end(), [&](const Span& span) {
      return scanner.scan({vmas[span.first].start, vmas[span.last].end}, collector, result);
    });
    if (done) return result;
  }
  // Entries of holes would be read like others, so this goes from area to area.
  for (const Vma& vma : vmas) {
    if (is_scanned(vma)) scan_by_reads(pagemap_fd, {vma.start, vma.end}, collector, result);
  }
  return result;
}

}  // namespace stasis
