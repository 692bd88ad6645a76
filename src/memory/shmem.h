// Memory objects: shared anonymous memory, memfds, System V segments. Several tasks map them, no path leads to them.
//
// An object is dumped once for the whole tree, into pagemap-shmem-ID.img; what else it has belongs to its kind.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/fd.h"
#include "image/pagemap.h"
#include "kernel/proc.h"
#include "memory/vma.h"

namespace stasis {

// Dump ---------------------------------------------------------------------------------------------------

struct MemoryObject {
  uint64_t id = 0;   // names its page map
  Fd fd;             // open for reading
  std::string name;  // for messages
};

// Opens what is mapped from `start` to `end`, for reading, through /proc/PID/map_files (which needs CAP_SYS_ADMIN or
// CAP_CHECKPOINT_RESTORE in the initial user namespace: NO_PRIVILEGE). `name` is for messages.
Fd open_mapped(const ProcDir& proc, uint64_t start, uint64_t end, const std::string& name);

// The touched ranges of a file or object, page aligned. Of an object of huge pages those that are not all zero.
std::vector<AddressRange> data_ranges(int fd, const std::string& name);

// Restore ------------------------------------------------------------------------------------------------

struct SharedNeed {
  uint64_t size_bytes = 0;
  bool noreserve = false;
  uint32_t huge_flags = 0;  // MAP_HUGETLB and the size of its pages, or 0
};
// What the mappings of the tasks ask of object `shmid`, for which old images have no size; call it for each task with
// the same `need`.
void add_need(SharedNeed& need, uint64_t shmid, std::span<const Vma> vmas);
// Its page map may reach further.
void add_need(SharedNeed& need, const PagemapReader& pages);

// A new object, all zero, open for reading and writing: a mapping of it shows as "/dev/zero (deleted)" or
// "/anon_hugepage (deleted)", like the one that mmap(MAP_SHARED | MAP_ANONYMOUS) makes.
Fd shmem_create(const SharedNeed& need);
// Writes the stored pages. `name` of the object and `pages_name` of the image are for messages.
void shmem_fill(int fd, const PagemapReader& pages, const std::string& name);

}  // namespace stasis
