#include "image/pagemap.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <random>

#include "base/test_error.h"
#include "proto/pagemap.pb.h"

namespace stasis {
namespace {

const uint64_t page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));

// Values of every varint length.
uint64_t random_number(std::mt19937_64& random) {
  return random() >> (random() % 64);
}

TEST(PagemapCodec, WritesTheBytesOfTheMessageClass) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 20000; ++i) {
    PageRange range{random_number(random), random_number(random), static_cast<uint32_t>(random_number(random))};
    pb::pagemap_entry entry;
    entry.set_vaddr(range.vaddr);
    entry.set_compat_nr_pages(0);
    entry.set_flags(range.flags);
    entry.set_nr_pages(range.nr_pages);
    std::string packed;
    append_pagemap_entry(packed, range);
    ASSERT_EQ(packed, entry.SerializeAsString());
    ASSERT_EQ(decode_pagemap_entry(packed), range);
  }
}

// What the message class makes of the same bytes.
std::optional<PageRange> decode_by_library(const std::string& packed) {
  pb::pagemap_entry entry;
  if (!entry.ParsePartialFromString(packed) || !entry.IsInitialized()) return std::nullopt;
  uint32_t flags = entry.has_flags() ? entry.flags() : entry.in_parent() ? kPageInParent : kPagePresent;
  if (entry.in_parent()) flags |= kPageInParent;
  return PageRange{entry.vaddr(), entry.has_nr_pages() ? entry.nr_pages() : entry.compat_nr_pages(), flags};
}

TEST(PagemapCodec, ReadsAnyFieldsAsTheMessageClassDoes) {
  std::mt19937_64 random(2);
  for (int i = 0; i < 20000; ++i) {
    pb::pagemap_entry entry;
    entry.set_vaddr(random_number(random));
    if (random() % 8 != 0) entry.set_compat_nr_pages(static_cast<uint32_t>(random_number(random)));
    if (random() % 2 != 0) entry.set_in_parent(random() % 2 != 0);
    if (random() % 2 != 0) entry.set_flags(static_cast<uint32_t>(random_number(random)));
    if (random() % 2 != 0) entry.set_nr_pages(random_number(random));
    std::string packed = entry.SerializePartialAsString();
    if (random() % 4 == 0) packed += std::string("\x32\x02hi", 4);  // field 6, unknown
    ASSERT_EQ(decode_pagemap_entry(packed), decode_by_library(packed));
  }
}

TEST(PagemapCodec, ReadsDamagedBytesAsTheMessageClassDoes) {
  std::mt19937_64 random(3);
  for (int i = 0; i < 50000; ++i) {
    std::string packed;
    append_pagemap_entry(packed, {random_number(random), random_number(random), kPagePresent});
    packed[random() % packed.size()] = static_cast<char>(random());
    if (random() % 2 != 0) packed.resize(random() % packed.size());
    ASSERT_EQ(decode_pagemap_entry(packed), decode_by_library(packed));
  }
}

TEST(PagemapCodec, OldReadersFieldsHaveTheirMeaning) {
  pb::pagemap_entry entry;
  entry.set_vaddr(page);
  entry.set_compat_nr_pages(7);
  EXPECT_EQ(decode_pagemap_entry(entry.SerializeAsString()), (PageRange{page, 7, kPagePresent}));
  entry.set_in_parent(true);
  EXPECT_EQ(decode_pagemap_entry(entry.SerializeAsString()), (PageRange{page, 7, kPageInParent}));
}

void put_pages(PagemapWriter& map, char fill, uint64_t nr_pages) {
  std::string bytes(nr_pages * page, fill);
  off_t offset = static_cast<off_t>(map.present_pages() * page);
  ASSERT_EQ(::pwrite(map.pages_fd(), bytes.data(), bytes.size(), offset), static_cast<ssize_t>(bytes.size()));
}

TEST(Pagemap, WhatIsWrittenIsRead) {
  ImageStore store = ImageStore::in_memory();
  PagemapWriter map(store, ImageKind::PAGEMAP, 42);
  put_pages(map, 'a', 2);
  map.add({16 * page, 2, kPagePresent});
  put_pages(map, 'b', 1);
  map.add({18 * page, 1, kPagePresent});  // continues the range
  map.add({19 * page, 4, kPageInParent});
  map.add({30 * page, 1, kPageLazy});
  put_pages(map, 'c', 1);
  map.add({40 * page, 1, kPagePresent | kPageLazy});
  map.close();

  PagemapWriter second(store, ImageKind::SHMEM_PAGEMAP, 7);
  EXPECT_EQ(second.pages_id(), 2u);
  second.close();

  std::optional<PagemapReader> read = PagemapReader::open(store, ImageKind::PAGEMAP, 42);
  ASSERT_TRUE(read);
  ASSERT_EQ(read->ranges().size(), 4u);
  EXPECT_EQ(read->ranges()[0].range, (PageRange{16 * page, 3, kPagePresent}));
  EXPECT_EQ(read->ranges()[1].range, (PageRange{19 * page, 4, kPageInParent}));
  EXPECT_EQ(read->ranges()[3].range, (PageRange{40 * page, 1, kPagePresent | kPageLazy}));
  EXPECT_EQ(read->ranges()[3].pages_offset_bytes, 3 * page);
  EXPECT_EQ(read->present_pages(), 4u);
  char first;
  ASSERT_EQ(::pread(read->pages_fd(), &first, 1, static_cast<off_t>(3 * page)), 1);
  EXPECT_EQ(first, 'c');

  EXPECT_TRUE(PagemapReader::open(store, ImageKind::SHMEM_PAGEMAP, 7)->ranges().empty());
  EXPECT_FALSE(PagemapReader::open(store, ImageKind::PAGEMAP, 43));
}

TEST(Pagemap, PromisesAreKeptBeforeItCloses) {
  ImageStore store = ImageStore::in_memory();
  PagemapWriter map(store, ImageKind::PAGEMAP, 42);
  map.add({page, 2, kPagePresent});
  EXPECT_EQ(error_of([&] { map.add({2 * page, 1, kPagePresent}); }).reason(), Reason::INTERNAL);
  EXPECT_EQ(error_of([&] { map.add({9 * page + 1, 1, kPagePresent}); }).reason(), Reason::INTERNAL);
  EXPECT_EQ(error_of([&] { map.close(); }).reason(), Reason::INTERNAL);
}

Reason reason_of_ranges(const std::vector<PageRange>& ranges, uint64_t stored_pages) {
  ImageStore store = ImageStore::in_memory();
  ImageWriter& file = store.writer(ImageKind::PAGEMAP, 1);
  pb::pagemap_head head;
  head.set_pages_id(1);
  file.write(head);
  for (const PageRange& range : ranges) {
    std::string packed;
    append_pagemap_entry(packed, range);
    file.write_packed(packed);
  }
  file.close();
  if (stored_pages != 0) {
    Fd pages = store.create_raw(ImageKind::PAGES, 1);
    EXPECT_EQ(::ftruncate(pages.get(), static_cast<off_t>(stored_pages * page)), 0);
  }
  return error_of([&] { PagemapReader::open(store, ImageKind::PAGEMAP, 1); }).reason();
}

TEST(Pagemap, BadMapsAreRefused) {
  constexpr uint32_t present = kPagePresent;
  EXPECT_EQ(reason_of_ranges({{page, 2, present}, {2 * page, 1, present}}, 9), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(reason_of_ranges({{page, 2, present}, {0, 1, present}}, 9), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(reason_of_ranges({{page + 8, 2, present}}, 9), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(reason_of_ranges({{page, 0, present}}, 9), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(reason_of_ranges({{page, UINT64_MAX / page, present}}, 9), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(reason_of_ranges({{page, 1, 0}}, 9), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(reason_of_ranges({{page, 1, 8}}, 9), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(reason_of_ranges({{page, 1, kPagePresent | kPageInParent}}, 9), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(reason_of_ranges({{page, 2, present}}, 1), Reason::IMAGE_TRUNCATED);
  EXPECT_EQ(reason_of_ranges({{page, 2, present}}, 0), Reason::IMAGE_MISSING);
}

}  // namespace
}  // namespace stasis
