// Page maps: bytes 0 and 1 are the number of pages in pages-1.img, the rest is pagemap-1.img; then single entries.
#include <string>

#include "fuzz.h"
#include "image/pagemap.h"
#include "image_directory.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace stasis;
  static fuzz::ImageDirectory directory;
  fuzz::Input input(data, size);
  const uint64_t stored_pages = input.word();
  const std::string_view bytes = input.rest();
  directory.clear();
  directory.add("pagemap-1.img", bytes);
  directory.add_zeros("pages-1.img", stored_pages * 4096);

  fuzz::accepts([&] {
    const ImageStore store = ImageStore::in_directory(directory.open_again(), "fuzz");
    const auto reader = PagemapReader::open(store, ImageKind::PAGEMAP, 1);
    uint64_t end = 0, present = 0;
    for (const StoredRange& r : reader->ranges()) {
      // What the layers above rely on.
      if (r.range.vaddr < end || r.range.nr_pages == 0 || r.range.vaddr % 4096 != 0) __builtin_trap();
      end = r.range.vaddr + r.range.nr_pages * 4096;
      if (end <= r.range.vaddr) __builtin_trap();
      if ((r.range.flags & kPagePresent) == 0) continue;
      if (r.pages_offset_bytes + r.range.nr_pages * 4096 > stored_pages * 4096) __builtin_trap();
      present += r.range.nr_pages;
    }
    if (present != reader->present_pages()) __builtin_trap();
    if (!reader->ranges().empty()) {
      const uint64_t start = reader->ranges().front().range.vaddr;
      read_stored_bytes(*reader, start, start + 2 * 4096);
    }
  });
  if (const auto range = decode_pagemap_entry(bytes)) {
    std::string packed;
    append_pagemap_entry(packed, *range);
    if (decode_pagemap_entry(packed) != range) __builtin_trap();
  }
  return 0;
}
