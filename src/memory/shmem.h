// Shared anonymous memory: objects that several tasks map and that no file names.
//
// An object is known by its inode number, the `shmid` of its mappings; it is dumped once for the whole tree. The image
// format has no size for it: a restore makes it as large as the last mapping or the last stored page needs.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/fd.h"
#include "image/pagemap.h"
#include "kernel/proc.h"
#include "memory/vma.h"

namespace stasis {

// Dump ---------------------------------------------------------------------------------------------------

struct SharedObject {
  uint64_t shmid = 0;
  uint64_t size_bytes = 0;  // may be more than any mapping shows
  Fd fd;                    // open for reading
  std::string name;         // for messages
};

// The objects of all tasks of a run.
class SharedObjects {
 public:
  // Opens the objects of one task that are not known yet, through /proc/PID/map_files (which needs CAP_SYS_ADMIN or
  // CAP_CHECKPOINT_RESTORE in the initial user namespace: NO_PRIVILEGE).
  void collect(const ProcDir& proc, std::span<const Vma> vmas);
  const std::vector<SharedObject>& objects() const { return objects_; }

 private:
  std::vector<SharedObject> objects_;
  std::unordered_map<uint64_t, size_t> by_shmid_;
};

// The touched ranges of a file or object, page aligned.
std::vector<AddressRange> data_ranges(int fd, const std::string& name);

// Restore ------------------------------------------------------------------------------------------------

struct SharedNeed {
  uint64_t size_bytes = 0;
  bool noreserve = false;
};
// What the mappings of the tasks ask of object `shmid`; call it for each task with the same `need`.
void add_need(SharedNeed& need, uint64_t shmid, std::span<const Vma> vmas);
// Its page map may reach further.
void add_need(SharedNeed& need, const PagemapReader& pages);

// A new object, all zero, open for reading and writing: a mapping of it shows as "/dev/zero (deleted)", like the one
// that mmap(MAP_SHARED | MAP_ANONYMOUS) makes.
Fd shmem_create(const SharedNeed& need);
// Writes the stored pages. `name` of the object and `pages_name` of the image are for messages.
void shmem_fill(int fd, const PagemapReader& pages, const std::string& name);

}  // namespace stasis
