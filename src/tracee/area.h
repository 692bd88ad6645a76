// The batch area: two adjacent mappings in a task, one with the code of the loop (read, execute) and one with a slot
// for every thread that runs batches at the same time (read, write).
//
//   code:  loop | heal code of slot 0 | heal code of slot 1 ... | room for bootstraps of later controllers
//   slots: SlotHead, batch image (undo table, table, data) each
//
// Plain geometry: no task is touched here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "arch/arch.h"
#include "kernel/proc_maps.h"

namespace stasis {

constexpr size_t align16(size_t n) {
  return (n + 15) & ~size_t{15};
}

class BatchArea {
 public:
  BatchArea() = default;
  // Slot 0 gets `first_slot_bytes`, the others `other_slot_bytes`; both are rounded up to pages.
  BatchArea(uint64_t address, unsigned slots, size_t first_slot_bytes, size_t other_slot_bytes);

  uint64_t address() const { return address_; }
  size_t code_bytes() const { return code_bytes_; }
  uint64_t slots_address() const { return address_ + code_bytes_; }
  size_t slots_bytes() const { return slots_bytes_; }
  size_t bytes() const { return code_bytes_ + slots_bytes_; }
  uint64_t end() const { return address_ + bytes(); }
  unsigned slots() const { return slots_; }

  uint64_t loop() const { return address_; }
  uint64_t reported() const;
  uint64_t heal_code(unsigned slot) const;
  uint64_t slot(unsigned index) const;
  // The batch image follows the head of a slot.
  uint64_t batch(unsigned slot) const;
  size_t batch_capacity(unsigned slot) const;

  // What the code mapping holds.
  std::vector<std::byte> code_image() const;

  // Bytes of an area of that shape.
  static size_t bytes_for(unsigned slots, size_t first_slot_bytes, size_t other_slot_bytes);
  // True for a mapping that begins with the loop: an area that a dead controller left.
  static bool looks_like_code(std::span<const std::byte> first_bytes);

 private:
  uint64_t address_ = 0;
  unsigned slots_ = 0;
  size_t first_ = 0, other_ = 0;
  size_t code_bytes_ = 0, slots_bytes_ = 0;
};

// An address range below `end` that is free in a list of mappings (ascending), or 0. Keeps a page away from neighbours
// and well below areas that grow down.
uint64_t find_free_range(std::span<const Mapping> mappings, size_t bytes, uint64_t end = arch::address_end(false, 0));

}  // namespace stasis
