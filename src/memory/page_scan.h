// Which pages of a task's private mappings have to be stored.
//
// Stored are pages that are present or swapped out, except the shared zero page, pages equal to the mapped file, and
// guard regions. The task is stopped: a page that changes its state during the scan is caught or missed at random.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "memory/vma.h"

namespace stasis {

struct PageRun {
  size_t vma;  // index in the list that was scanned
  uint64_t start;
  uint64_t nr_pages;

  bool operator==(const PageRun&) const = default;
};

struct PageScan {
  std::vector<PageRun> runs;         // ascending; each lies in one mapping
  std::vector<AddressRange> guards;  // guard regions, ascending
  uint64_t scanned_pages = 0;        // of the mappings that were looked at
  uint64_t stored_pages = 0;         // sum of runs
  uint64_t calls = 0;                // system calls made
};

enum class ScanMethod {
  BEST,           // PAGEMAP_SCAN (Linux 6.7), else reading
  PAGEMAP_READS,  // cannot tell the zero page from others, so it is stored
};

// `pagemap_fd`: /proc/PID/pagemap. Looks at the areas that keep private memory; the vdso is not scanned.
PageScan scan_pages(int pagemap_fd, std::span<const Vma> vmas, ScanMethod method = ScanMethod::BEST);

}  // namespace stasis
