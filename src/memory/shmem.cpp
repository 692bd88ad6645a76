#include "memory/shmem.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/error.h"
#include "base/page_size.h"
#include "base/scope_guard.h"
#include "memory/block_io.h"

namespace stasis {

namespace {

std::string map_files_name(uint64_t start, uint64_t end) {
  return fmt::format("map_files/{:x}-{:x}", start, end);
}

// Adds what was being opened to an error of ProcDir::open.
Fd open_object(const ProcDir& proc, const Vma& vma, const std::string& name) {
  const std::string file = map_files_name(vma.start, vma.end);
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

uint64_t size_of(int fd, const std::string& name) {
  struct stat info;
  if (::fstat(fd, &info) != 0) {
    throw Error(Reason::SYSTEM, "cannot get its size").object(name).error_number(errno);
  }
  return static_cast<uint64_t>(info.st_size);
}

}  // namespace

void SharedObjects::collect(const ProcDir& proc, std::span<const Vma> vmas) {
  for (const Vma& vma : vmas) {
    if (!vma.has(vma_status::anon_shared) || by_shmid_.contains(vma.shmid)) continue;
    SharedObject object;
    object.shmid = vma.shmid;
    object.name = fmt::format("shared memory {} of {}", vma.shmid, proc.describe());
    object.fd = open_object(proc, vma, object.name);
    object.size_bytes = size_of(object.fd.get(), object.name);
    by_shmid_.emplace(object.shmid, objects_.size());
    objects_.push_back(std::move(object));
  }
}

std::vector<AddressRange> data_ranges(int fd, const std::string& name) {
  const uint64_t page = page_size_bytes();
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
    if (!vma.has(vma_status::anon_shared) || vma.shmid != shmid) continue;
    need.size_bytes = std::max(need.size_bytes, vma.pgoff_bytes + vma.size_bytes());
    need.noreserve = need.noreserve || (vma.flags & MAP_NORESERVE) != 0;
  }
}

void add_need(SharedNeed& need, const PagemapReader& pages) {
  if (pages.ranges().empty()) return;
  const PageRange& last = pages.ranges().back().range;
  need.size_bytes = std::max(need.size_bytes, last.vaddr + last.nr_pages * page_size_bytes());
}

Fd shmem_create(const SharedNeed& need) {
  const int flags = MAP_SHARED | MAP_ANONYMOUS | (need.noreserve ? MAP_NORESERVE : 0);
  void* map = ::mmap(nullptr, need.size_bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (map == MAP_FAILED) {
    throw Error(Reason::RESTORE_CALL_FAILED, fmt::format("cannot make {} bytes of shared memory", need.size_bytes))
        .error_number(errno);
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
  for (const StoredRange& stored : pages.ranges()) {
    if (stored.range.flags != page_present && stored.range.flags != (page_present | page_lazy)) {
      throw Error(Reason::IMAGE_UNSUPPORTED, "pages are not in these images")
          .object(name)
          .remedy("dump again without --prev-images-dir and --lazy-pages");
    }
    const uint64_t bytes = stored.range.nr_pages * page_size_bytes();
    for (uint64_t at = 0; at < bytes; at += copy_block_bytes) {
      const uint64_t n = std::min<uint64_t>(bytes - at, copy_block_bytes);
      read_whole(pages.pages_fd(), buffer.get(), n, stored.pages_offset_bytes + at, "a pages file",
                 Reason::IMAGE_TRUNCATED);
      write_whole(fd, buffer.get(), n, stored.range.vaddr + at, name, Reason::RESTORE_CALL_FAILED);
    }
  }
}

}  // namespace stasis
