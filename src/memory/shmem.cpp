#include "memory/shmem.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "base/page_size.h"
#include "base/scope_guard.h"
#include "memory/block_io.h"

namespace stasis {

namespace {

std::string map_files_name(uint64_t start, uint64_t end) {
  return fmt::format("map_files/{:x}-{:x}", start, end);
}

bool is_hugetlbfs(int fd, uint64_t& page_bytes) {
  struct statfs info;
  if (::fstatfs(fd, &info) != 0 || info.f_type != HUGETLBFS_MAGIC) return false;
  page_bytes = static_cast<uint64_t>(info.f_bsize);
  return true;
}

bool is_zero(const char* bytes, uint64_t count) {
  return bytes[0] == 0 && std::memcmp(bytes, bytes + 1, count - 1) == 0;
}

// The kernel does not tell the holes of these files, and reads them as zero without filling them.
std::vector<AddressRange> nonzero_ranges(int fd, uint64_t huge_bytes, const std::string& name) {
  std::vector<AddressRange> ranges;
  struct stat info;
  if (::fstat(fd, &info) != 0) throw Error(Reason::SYSTEM, "cannot get its size").object(name).error_number(errno);
  const auto size = static_cast<uint64_t>(info.st_size);
  if (info.st_blocks == 0) return ranges;
  const PageBuffer buffer = page_buffer(copy_block_bytes);
  for (uint64_t start = 0; start < size; start += huge_bytes) {
    const uint64_t end = std::min(start + huge_bytes, size);
    bool zero = true;
    for (uint64_t at = start; at < end && zero; at += copy_block_bytes) {
      const uint64_t bytes = std::min<uint64_t>(copy_block_bytes, end - at);
      read_whole(fd, buffer.get(), bytes, at, name, Reason::SYSTEM);
      zero = is_zero(buffer.get(), bytes);
    }
    if (zero) continue;
    if (!ranges.empty() && ranges.back().end == start) {
      ranges.back().end = end;
    } else {
      ranges.push_back({start, end});
    }
  }
  return ranges;
}

// Files of hugetlbfs cannot be written to (hugetlbfs(5)): through a mapping.
void write_huge(int fd, uint64_t huge_bytes, const char* from, uint64_t bytes, uint64_t offset,
                const std::string& name) {
  while (bytes > 0) {
    const uint64_t start = offset / huge_bytes * huge_bytes;
    const uint64_t part = std::min(bytes, start + huge_bytes - offset);
    void* map = ::mmap(nullptr, huge_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, static_cast<off_t>(start));
    if (map == MAP_FAILED)
      throw Error(Reason::RESTORE_CALL_FAILED, "cannot fill memory of huge pages")
          .object(name)
          .error_number(errno)
          .remedy("reserve as many huge pages as the program had (vm.nr_hugepages)");
    std::memcpy(static_cast<char*>(map) + (offset - start), from, part);
    ::munmap(map, huge_bytes);
    from += part;
    offset += part;
    bytes -= part;
  }
}

}  // namespace

Fd open_mapped(const ProcDir& proc, uint64_t start, uint64_t end, const std::string& name) {
  const std::string file = map_files_name(start, end);
  const int fd = ::openat(proc.fd(), file.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd >= 0) return Fd(fd);
  const int error_number = errno;
  if (error_number == EPERM || error_number == EACCES) {
    throw Error(Reason::NO_PRIVILEGE, fmt::format("cannot open /proc/{}/{}", proc.pid(), file))
        .object(name)
        .error_number(error_number)
        .remedy("run with CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN in the initial user namespace");
  }
  throw Error(error_number == ESRCH ? Reason::TASK_VANISHED : Reason::SYSTEM,
              fmt::format("cannot open /proc/{}/{}", proc.pid(), file))
      .object(name)
      .error_number(error_number);
}

std::vector<AddressRange> data_ranges(int fd, const std::string& name) {
  const uint64_t page = page_size_bytes();
  uint64_t huge_bytes = 0;
  if (is_hugetlbfs(fd, huge_bytes)) return nonzero_ranges(fd, huge_bytes, name);
  std::vector<AddressRange> ranges;
  for (off_t at = 0;;) {
    const off_t data = ::lseek(fd, at, SEEK_DATA);
    if (data < 0 && errno == ENXIO) return ranges;  // no data from there on
    const off_t hole = data < 0 ? -1 : ::lseek(fd, data, SEEK_HOLE);
    if (hole < 0) throw Error(Reason::SYSTEM, "cannot find its touched pages").object(name).error_number(errno);
    const uint64_t start = static_cast<uint64_t>(data) / page * page;
    const uint64_t end = (static_cast<uint64_t>(hole) + page - 1) / page * page;
    if (!ranges.empty() && ranges.back().end >= start) {
      ranges.back().end = end;
    } else {
      ranges.push_back({start, end});
    }
    at = hole;
  }
}

void add_need(SharedNeed& need, uint64_t shmid, std::span<const Vma> vmas) {
  for (const Vma& vma : vmas) {
    if (!vma.is_nameless_object() || vma.shmid != shmid) continue;
    need.size_bytes = std::max(need.size_bytes, vma.pgoff_bytes + vma.size_bytes());
    need.noreserve = need.noreserve || (vma.flags & MAP_NORESERVE) != 0;
    if (vma.is_huge()) need.huge_flags = vma.flags & (MAP_HUGETLB | uint32_t{MAP_HUGE_MASK} << MAP_HUGE_SHIFT);
  }
}

void add_need(SharedNeed& need, const PagemapReader& pages) {
  if (pages.ranges().empty()) return;
  const PageRange& last = pages.ranges().back().range;
  need.size_bytes = std::max(need.size_bytes, last.vaddr + last.nr_pages * page_size_bytes());
}

Fd shmem_create(const SharedNeed& need) {
  const int flags =
      MAP_SHARED | MAP_ANONYMOUS | (need.noreserve ? MAP_NORESERVE : 0) | static_cast<int>(need.huge_flags);
  void* map = ::mmap(nullptr, need.size_bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (map == MAP_FAILED) {
    throw Error(Reason::RESTORE_CALL_FAILED, fmt::format("cannot make {} bytes of shared memory", need.size_bytes))
        .error_number(errno)
        .remedy(need.huge_flags != 0 ? "reserve as many huge pages as the program had (vm.nr_hugepages)" : "");
  }
  ScopeGuard unmap([&] { ::munmap(map, need.size_bytes); });
  const uint64_t start = reinterpret_cast<uint64_t>(map);
  const uint64_t page = page_size_bytes();
  const uint64_t end = (start + need.size_bytes + page - 1) / page * page;
  const std::string file = "/proc/self/" + map_files_name(start, end);
  const int fd = ::open(file.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) {
    const bool denied = errno == EPERM || errno == EACCES;
    throw Error(denied ? Reason::NO_PRIVILEGE : Reason::RESTORE_CALL_FAILED, "cannot open new shared memory")
        .object(file)
        .error_number(errno)
        .remedy(denied ? "run with CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN in the initial user namespace" : "");
  }
  return Fd(fd);
}

void shmem_fill(int fd, const PagemapReader& pages, const std::string& name) {
  const PageBuffer buffer = page_buffer(copy_block_bytes);
  uint64_t huge_bytes = 0;
  const bool huge = is_hugetlbfs(fd, huge_bytes);
  for (const StoredRange& stored : pages.ranges()) {
    if (stored.range.flags != kPagePresent && stored.range.flags != (kPagePresent | kPageLazy)) {
      throw Error(Reason::IMAGE_UNSUPPORTED, "pages are not in these images")
          .object(name)
          .remedy("dump again without --prev-images-dir and --lazy-pages");
    }
    const uint64_t bytes = stored.range.nr_pages * page_size_bytes();
    for (uint64_t at = 0; at < bytes; at += copy_block_bytes) {
      const uint64_t n = std::min<uint64_t>(bytes - at, copy_block_bytes);
      read_whole(pages.pages_fd(), buffer.get(), n, stored.pages_offset_bytes + at, pages.pages_name(),
                 Reason::IMAGE_TRUNCATED);
      if (huge) {
        write_huge(fd, huge_bytes, buffer.get(), n, stored.range.vaddr + at, name);
      } else {
        write_whole(fd, buffer.get(), n, stored.range.vaddr + at, name, Reason::RESTORE_CALL_FAILED);
      }
    }
  }
}

}  // namespace stasis
