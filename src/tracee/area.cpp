#include "tracee/area.h"

#include <algorithm>
#include <cstring>

#include "base/page_size.h"

namespace stasis {

namespace {

size_t whole_pages(size_t bytes) {
  return (bytes + page_size_bytes() - 1) & ~(page_size_bytes() - 1);
}
// The kernel keeps stack_guard_gap (256 pages) free below an area that grows down.
constexpr uint64_t kGrowthRoomPages = 512;
constexpr uint64_t kLowest = 0x100000;

size_t loop_room() {
  return align16(arch::batch_loop().size());
}
size_t heal_room() {
  return align16(arch::heal_code_size());
}
// Later controllers that find every better place in use boot from here. One that dies before it has an area of its own,
// or when that is gone again, uses up its place.
constexpr unsigned kSpareBootstraps = 12;
size_t spare_room() {
  return kSpareBootstraps * align16(arch::bootstrap_size(3, false)) + 64;
}
size_t code_bytes_for(unsigned slots) {
  return whole_pages(loop_room() + slots * heal_room() + spare_room());
}
constexpr size_t kHeadRoom = align16(sizeof(arch::SlotHead));

}  // namespace

BatchArea::BatchArea(uint64_t address, unsigned slots, size_t first_slot_bytes, size_t other_slot_bytes)
    : address_(address),
      slots_(slots),
      first_(whole_pages(first_slot_bytes)),
      other_(whole_pages(other_slot_bytes)),
      code_bytes_(code_bytes_for(slots)),
      slots_bytes_(first_ + (slots - 1) * other_) {}

size_t BatchArea::bytes_for(unsigned slots, size_t first_slot_bytes, size_t other_slot_bytes) {
  return BatchArea(0, slots, first_slot_bytes, other_slot_bytes).bytes();
}

uint64_t BatchArea::reported() const {
  return loop() + arch::batch_reported_offset();
}

uint64_t BatchArea::heal_code(unsigned slot) const {
  return address_ + loop_room() + slot * heal_room();
}

uint64_t BatchArea::slot(unsigned index) const {
  return slots_address() + (index == 0 ? 0 : first_ + (index - 1) * other_);
}

uint64_t BatchArea::batch(unsigned slot_index) const {
  return slot(slot_index) + kHeadRoom;
}

size_t BatchArea::batch_capacity(unsigned slot) const {
  return (slot == 0 ? first_ : other_) - kHeadRoom;
}

std::vector<std::byte> BatchArea::code_image() const {
  // Only what is not zero: a fresh mapping has the rest.
  std::vector<std::byte> out(loop_room() + slots_ * heal_room());
  const auto loop_code = arch::batch_loop();
  std::memcpy(out.data(), loop_code.data(), loop_code.size());
  for (unsigned i = 0; i < slots_; ++i) {
    const auto code = arch::heal_code(heal_code(i), slot(i));
    std::memcpy(out.data() + loop_room() + i * heal_room(), code.data(), code.size());
  }
  return out;
}

bool BatchArea::looks_like_code(std::span<const std::byte> first_bytes) {
  const auto loop_code = arch::batch_loop();
  return first_bytes.size() >= loop_code.size() && std::equal(loop_code.begin(), loop_code.end(), first_bytes.begin());
}

uint64_t find_free_range(std::span<const Mapping> mappings, size_t bytes, uint64_t end) {
  uint64_t from = kLowest;
  for (const Mapping& m : mappings) {
    if (m.start >= end) break;
    const bool grows = m.has(VmFlag::gd) || m.name == "[stack]";
    const uint64_t keep = (grows ? kGrowthRoomPages : 1) * page_size_bytes();
    const uint64_t limit = m.start > keep ? m.start - keep : 0;
    if (limit > from && limit - from >= bytes) return from;
    from = std::max(from, m.end + page_size_bytes());
  }
  return from < end && end - from >= bytes ? from : 0;
}

}  // namespace stasis
