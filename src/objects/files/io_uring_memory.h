// The memory that a ring of io_uring shares with programs, mapped into this one.
#pragma once

#include <sys/mman.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/error.h"

namespace stasis {

class RingMemory {
 public:
  // Where words of the part with both rings are (struct io_rings of the kernel; io_uring_setup(2) tells the same).
  static constexpr size_t sq_head = 0, sq_tail = 4, cq_head = 8, cq_tail = 12, sq_entries = 24, cq_entries = 28;

  RingMemory(int fd, uint64_t offset, size_t bytes, const std::string& who) : bytes_(bytes) {
    at_ = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, static_cast<off_t>(offset));
    if (at_ == MAP_FAILED) {
      Error e = Error(Reason::SYSTEM, "the memory of a ring of io_uring cannot be mapped").error_number(errno);
      e.default_object(who);
      throw e;
    }
  }
  RingMemory(const RingMemory&) = delete;
  RingMemory& operator=(const RingMemory&) = delete;
  ~RingMemory() { ::munmap(at_, bytes_); }

  std::span<std::byte> bytes() const { return {static_cast<std::byte*>(at_), bytes_}; }
  uint32_t word(size_t offset) const { return reference(offset).load(std::memory_order_acquire); }
  void set_word(size_t offset, uint32_t value) const { reference(offset).store(value, std::memory_order_release); }

 private:
  std::atomic_ref<uint32_t> reference(size_t offset) const {
    return std::atomic_ref<uint32_t>(*reinterpret_cast<uint32_t*>(static_cast<char*>(at_) + offset));
  }

  void* at_;
  size_t bytes_;
};

}  // namespace stasis
