#include "memory/block_io.h"

#include <fmt/format.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <new>
#include <string>
#include <thread>
#include <vector>

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

unsigned default_threads() {
  static const unsigned count = [] {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (::sched_getaffinity(0, sizeof(set), &set) != 0) return 1u;
    return std::clamp(static_cast<unsigned>(CPU_COUNT(&set)), 1u, 8u);
  }();
  return count;
}

void run_in_parallel(unsigned parts, const std::function<void(unsigned)>& part) {
  std::mutex mutex;
  std::exception_ptr first_error;
  auto guarded = [&](unsigned index) {
    try {
      part(index);
    } catch (...) {
      std::lock_guard lock(mutex);
      if (!first_error) first_error = std::current_exception();
    }
  };
  {
    std::vector<std::jthread> threads;
    for (unsigned i = 1; i < parts; ++i) threads.emplace_back(guarded, i);
    guarded(0);
  }
  if (first_error) std::rethrow_exception(first_error);
}

}  // namespace stasis
