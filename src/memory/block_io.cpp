#include "memory/block_io.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <new>
#include <string>

#include "base/page_size.h"

namespace stasis {

PageBuffer page_buffer(size_t bytes) {
  const size_t page = page_size_bytes();
  void* memory = std::aligned_alloc(page, (bytes + page - 1) / page * page);
  if (memory == nullptr) throw std::bad_alloc();
  return PageBuffer(static_cast<char*>(memory), [](void* p) { std::free(p); });
}

void read_whole(int fd, char* to, uint64_t bytes, uint64_t offset, std::string_view name, Reason reason) {
  while (bytes > 0) {
    const ssize_t n = ::pread(fd, to, bytes, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      throw Error(reason, fmt::format("cannot read {} bytes at {:#x}", bytes, offset))
          .error_number(errno)
          .object(std::string(name));
    }
    if (n == 0) throw Error(reason, fmt::format("it ends at {:#x}", offset)).object(std::string(name));
    to += n;
    offset += static_cast<uint64_t>(n);
    bytes -= static_cast<uint64_t>(n);
  }
}

void write_whole(int fd, const char* from, uint64_t bytes, uint64_t offset, std::string_view name, Reason reason) {
  while (bytes > 0) {
    const ssize_t n = ::pwrite(fd, from, bytes, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      throw Error(reason, fmt::format("cannot write {} bytes at {:#x}", bytes, offset))
          .error_number(n < 0 ? errno : 0)
          .object(std::string(name))
          .remedy(n < 0 && errno == ENOSPC ? "make room where it is written" : "");
    }
    from += n;
    offset += static_cast<uint64_t>(n);
    bytes -= static_cast<uint64_t>(n);
  }
}

}  // namespace stasis
