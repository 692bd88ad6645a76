// Whole transfers at an offset.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "base/error.h"

namespace stasis {

// The buffer of a copy: large enough that calls do not count, small enough to stay in the processor's cache (128 KiB
// to 1 MiB measure the same; 4 MiB is slower on tmpfs), and as small as that allows: its pages are fresh memory.
inline constexpr size_t copy_block_bytes = size_t{128} << 10;
// Less than this is done sooner than a second thread starts to help.
inline constexpr uint64_t bytes_worth_a_thread = uint64_t{16} << 20;

using PageBuffer = std::unique_ptr<char, void (*)(void*)>;
// Page aligned.
PageBuffer page_buffer(size_t bytes);

// Throw `reason` with errno, and with IMAGE_TRUNCATED-like text for a file that ends too early.
void read_whole(int fd, char* to, uint64_t bytes, uint64_t offset, std::string_view name, Reason reason);
void write_whole(int fd, const char* from, uint64_t bytes, uint64_t offset, std::string_view name, Reason reason);

}  // namespace stasis
