#include "image/pagemap.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "base/error.h"
#include "base/page_size.h"
#include "proto/pagemap.pb.h"

namespace stasis {

namespace {

constexpr uint32_t kKnownFlags = kPageInParent | kPageLazy | kPagePresent;

// Field number << 3; all fields of the message are varints, wire type 0.
constexpr char kVaddrTag = 1 << 3;
constexpr char kCompatNrPagesTag = 2 << 3;
constexpr char kInParentTag = 3 << 3;
constexpr char kFlagsTag = 4 << 3;
constexpr char kNrPagesTag = 5 << 3;

char* put_varint(char* out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) *out++ = static_cast<char>(value | 0x80);
  *out++ = static_cast<char>(value);
  return out;
}

// False when the bytes end too early or the number does not fit.
bool take_varint(std::string_view& bytes, uint64_t& value) {
  value = 0;
  for (size_t i = 0; i < bytes.size() && i < 10; ++i) {
    auto byte = static_cast<uint8_t>(bytes[i]);
    value |= static_cast<uint64_t>(byte & 0x7f) << (7 * i);
    if (byte < 0x80) {
      bytes.remove_prefix(i + 1);
      return true;
    }
  }
  return false;
}

struct Fields {
  std::optional<uint64_t> vaddr;
  std::optional<uint32_t> compat_nr_pages;
  bool in_parent = false;
  std::optional<uint32_t> flags;
  std::optional<uint64_t> nr_pages;
};

// The five known fields in any order; nothing for whatever else may be in a message.
std::optional<Fields> take_known_fields(std::string_view bytes) {
  Fields fields;
  while (!bytes.empty()) {
    char tag = bytes.front();
    bytes.remove_prefix(1);
    uint64_t value;
    if (!take_varint(bytes, value)) return std::nullopt;
    switch (tag) {
      case kVaddrTag:
        fields.vaddr = value;
        break;
      case kCompatNrPagesTag:
        fields.compat_nr_pages = static_cast<uint32_t>(value);
        break;
      case kInParentTag:
        fields.in_parent = value != 0;
        break;
      case kFlagsTag:
        fields.flags = static_cast<uint32_t>(value);
        break;
      case kNrPagesTag:
        fields.nr_pages = value;
        break;
      default:
        return std::nullopt;
    }
  }
  return fields;
}

std::optional<Fields> parse_message(std::string_view bytes) {
  pb::pagemap_entry entry;
  if (!entry.ParsePartialFromArray(bytes.data(), static_cast<int>(bytes.size()))) return std::nullopt;
  Fields fields;
  if (entry.has_vaddr()) fields.vaddr = entry.vaddr();
  if (entry.has_compat_nr_pages()) fields.compat_nr_pages = entry.compat_nr_pages();
  fields.in_parent = entry.in_parent();
  if (entry.has_flags()) fields.flags = entry.flags();
  if (entry.has_nr_pages()) fields.nr_pages = entry.nr_pages();
  return fields;
}

// What is wrong with the range, coming after one that ends at `previous_end`; nothing when it is good.
const char* fault_of(const PageRange& range, uint64_t previous_end) {
  if (range.vaddr % page_size_bytes() != 0) return "a page range is not page aligned";
  if (range.nr_pages == 0) return "a page range is empty";
  if (range.nr_pages > (UINT64_MAX - range.vaddr) / page_size_bytes()) return "a page range ends beyond all addresses";
  if (range.vaddr < previous_end) return "page ranges overlap or are not in order";
  if (range.flags == 0 || (range.flags & ~kKnownFlags) != 0) return "a page range has unknown flags";
  if ((range.flags & kPageInParent) != 0 && range.flags != kPageInParent) {
    return "a page range is both in the parent and here";
  }
  return nullptr;
}

}  // namespace

void append_pagemap_entry(std::string& out, const PageRange& range) {
  char bytes[32];  // 4 tags, 10 + 1 + 5 + 10 bytes of numbers
  char* end = bytes;
  *end++ = kVaddrTag;
  end = put_varint(end, range.vaddr);
  *end++ = kCompatNrPagesTag;
  *end++ = 0;
  *end++ = kFlagsTag;
  end = put_varint(end, range.flags);
  *end++ = kNrPagesTag;
  end = put_varint(end, range.nr_pages);
  out.append(bytes, static_cast<size_t>(end - bytes));
}

std::optional<PageRange> decode_pagemap_entry(std::string_view packed_message) {
  std::optional<Fields> fields = take_known_fields(packed_message);
  if (!fields) fields = parse_message(packed_message);
  if (!fields || !fields->vaddr || !fields->compat_nr_pages) return std::nullopt;
  uint32_t old_flags = fields->in_parent ? 0 : kPagePresent;
  uint32_t flags = fields->flags.value_or(old_flags) | (fields->in_parent ? kPageInParent : 0);
  return PageRange{*fields->vaddr, fields->nr_pages.value_or(*fields->compat_nr_pages), flags};
}

PagemapWriter::PagemapWriter(ImageStore& store, ImageKind kind, uint64_t id)
    : store_(store),
      writer_(store.writer(kind, id)),
      pages_id_(store.take_pages_id()),
      pages_(store.create_raw(ImageKind::PAGES, pages_id_)) {
  pb::pagemap_head head;
  head.set_pages_id(pages_id_);
  writer_.write(head);
}

void PagemapWriter::add(const PageRange& range) {
  uint64_t previous_end = pending_ ? pending_->vaddr + pending_->nr_pages * page_size_bytes() : 0;
  if (const char* fault = fault_of(range, previous_end)) {
    throw Error(Reason::INTERNAL,
                fmt::format("{}: {:#x}, {} pages, flags {}", fault, range.vaddr, range.nr_pages, range.flags));
  }
  if ((range.flags & kPagePresent) != 0) present_pages_ += range.nr_pages;
  if (pending_ && previous_end == range.vaddr && pending_->flags == range.flags) {
    pending_->nr_pages += range.nr_pages;
    return;
  }
  write_pending();
  pending_ = range;
}

void PagemapWriter::write_pending() {
  if (!pending_) return;
  scratch_.clear();
  append_pagemap_entry(scratch_, *pending_);
  writer_.write_packed(scratch_);
}

void PagemapWriter::close() {
  write_pending();
  pending_.reset();
  writer_.close();
  uint64_t size_bytes = image_file_size(pages_.get(), pages_name());
  uint64_t wanted_bytes = present_pages_ * page_size_bytes();
  if (size_bytes != wanted_bytes) {
    throw Error(Reason::INTERNAL,
                fmt::format("{} bytes of pages were written and {} promised", size_bytes, wanted_bytes))
        .object(pages_name());
  }
  pages_.reset();
}

std::optional<PagemapReader> PagemapReader::open(const ImageStore& store, ImageKind kind, uint64_t id) {
  std::optional<ImageReader> image = store.reader(kind, id);
  if (!image) return std::nullopt;
  pb::pagemap_head head;
  image->require(head);

  PagemapReader map;
  map.pages_id_ = head.pages_id();
  map.pages_name_ = store.shown_name(ImageKind::PAGES, map.pages_id_);
  map.read_ranges(*image);
  std::optional<ImageStore::RawFile> pages = store.open_raw(ImageKind::PAGES, map.pages_id_);
  if (pages) map.pages_ = std::move(pages->fd);
  if (map.present_pages_ == 0) return map;

  uint64_t needed_bytes = map.present_pages_ * page_size_bytes();
  if (!pages) {
    throw Error(Reason::IMAGE_MISSING, fmt::format("the pages of {} are missing", image->shown_name()))
        .object(map.pages_name_)
        .remedy("the images are not complete: check that the dump succeeded, and copy all of its files");
  }
  if (pages->size_bytes < needed_bytes) {
    throw Error(Reason::IMAGE_TRUNCATED, fmt::format("the file has {} bytes, and {} says {}", pages->size_bytes,
                                                     image->shown_name(), needed_bytes))
        .object(map.pages_name_)
        .remedy("copy the images again from where they were made, or make a new dump");
  }
  return map;
}

void PagemapReader::read_ranges(ImageReader& image) {
  uint64_t previous_end = 0;
  std::string_view packed;
  while (image.next_packed(packed)) {
    std::optional<PageRange> range = decode_pagemap_entry(packed);
    if (!range) image.corrupt("a record is not a pagemap_entry message");
    if (const char* fault = fault_of(*range, previous_end)) {
      image.corrupt(fmt::format("{}: {:#x}, {} pages, flags {}", fault, range->vaddr, range->nr_pages, range->flags));
    }
    ranges_.push_back({*range, present_pages_ * page_size_bytes()});
    // Ranges do not overlap, so the sum cannot exceed the pages of an address space.
    if ((range->flags & kPagePresent) != 0) present_pages_ += range->nr_pages;
    previous_end = range->vaddr + range->nr_pages * page_size_bytes();
  }
}

std::vector<std::byte> read_stored_bytes(const PagemapReader& pages, uint64_t start, uint64_t end) {
  std::vector<std::byte> out(end - start);
  for (const StoredRange& r : pages.ranges()) {
    if ((r.range.flags & kPagePresent) == 0) continue;
    const uint64_t from = std::max(start, r.range.vaddr);
    const uint64_t to = std::min(end, r.range.vaddr + r.range.nr_pages * page_size_bytes());
    if (from >= to) continue;
    const ssize_t n = pread(pages.pages_fd(), out.data() + (from - start), to - from,
                            static_cast<off_t>(r.pages_offset_bytes + (from - r.range.vaddr)));
    if (n != static_cast<ssize_t>(to - from))
      throw Error(Reason::IMAGE_TRUNCATED, "it ends too early").object(pages.pages_name());
  }
  return out;
}

}  // namespace stasis
