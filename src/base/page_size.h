// The size of a page of this machine.
#pragma once

#include <unistd.h>

#include <cstdint>

namespace stasis {

inline uint64_t page_size_bytes() {
  static const uint64_t size = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  return size;
}

}  // namespace stasis
