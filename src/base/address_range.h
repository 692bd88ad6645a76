// A range of addresses of a task.
#pragma once

#include <cstdint>

namespace stasis {

struct AddressRange {
  uint64_t start = 0;
  uint64_t end = 0;

  uint64_t size_bytes() const noexcept { return end - start; }
  bool operator==(const AddressRange&) const = default;
};

}  // namespace stasis
