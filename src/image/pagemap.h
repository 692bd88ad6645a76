// Page maps: which pages of a task or shared memory object are stored, and where in the pages file.
//
// The records are the most numerous of a dump, so they have a codec of their own that makes the same bytes as
// the message class. A page map and its pages file are written together by PagemapWriter; the pages themselves
// are the caller's business, through the descriptor of the pages file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "image/store.h"

namespace stasis {

constexpr uint32_t kPageInParent = 1;  // unchanged: the parent directory has it
constexpr uint32_t kPageLazy = 2;      // may be filled after the task runs
constexpr uint32_t kPagePresent = 4;   // stored in the pages file

struct PageRange {
  uint64_t vaddr;  // page aligned; in shared memory the offset in the object
  uint64_t nr_pages;
  uint32_t flags;  // kPageInParent, kPageLazy, kPagePresent

  bool operator==(const PageRange&) const = default;
};

// A pagemap_entry message with all fields of today, packed.
void append_pagemap_entry(std::string& out, const PageRange& range);
// Also accepts what older versions wrote. Nothing when the bytes are not a complete message.
std::optional<PageRange> decode_pagemap_entry(std::string_view packed_message);

// pagemap-ID.img or pagemap-shmem-ID.img, and its pages-N.img. The caller keeps the store alive.
class PagemapWriter {
 public:
  // `kind` is PAGEMAP or SHMEM_PAGEMAP.
  PagemapWriter(ImageStore& store, ImageKind kind, uint64_t id);

  // Ascending, page aligned, not empty and without overlap. A range that continues the one before (address,
  // flags) becomes one record with it.
  void add(const PageRange& range);

  // The pages file, where the pages of all kPagePresent ranges go in the order of add(), at
  // present_pages() before the call of add() x page size. Any thread may write it until close().
  int pages_fd() const { return pages_.get(); }
  std::string pages_name() const { return store_.shown_name(ImageKind::PAGES, pages_id_); }
  uint64_t present_pages() const { return present_pages_; }
  uint32_t pages_id() const { return pages_id_; }

  // Writes the page map, and closes the pages file once it has the size that the ranges give.
  void close();

 private:
  void write_pending();

  ImageStore& store_;
  ImageWriter& writer_;
  uint32_t pages_id_;
  Fd pages_;
  uint64_t present_pages_ = 0;
  std::optional<PageRange> pending_;
  std::string scratch_;
};

struct StoredRange {
  PageRange range;
  uint64_t pages_offset_bytes;  // of the first page in the pages file; meaningful when kPagePresent is set
};

// The whole page map of an object, checked: sorted, aligned, without overlap, and the pages file has it all.
class PagemapReader {
 public:
  // Nothing when the store has no page map of that name.
  static std::optional<PagemapReader> open(const ImageStore& store, ImageKind kind, uint64_t id);

  const std::vector<StoredRange>& ranges() const { return ranges_; }
  // The pages file, read-only; -1 when no range is stored and there is no file.
  int pages_fd() const { return pages_.get(); }
  const std::string& pages_name() const { return pages_name_; }
  uint32_t pages_id() const { return pages_id_; }
  uint64_t present_pages() const { return present_pages_; }

 private:
  PagemapReader() = default;
  void read_ranges(ImageReader& image);

  std::vector<StoredRange> ranges_;
  Fd pages_;
  std::string pages_name_;
  uint32_t pages_id_ = 0;
  uint64_t present_pages_ = 0;
};

// The stored bytes of the addresses from `start` to `end`; what is not stored reads as zero. For small ranges.
std::vector<std::byte> read_stored_bytes(const PagemapReader& pages, uint64_t start, uint64_t end);

}  // namespace stasis
