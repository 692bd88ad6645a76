// Segments of System V shared memory that tasks in the IPC namespace of this program have attached.
//
// A segment belongs to the host and not to the tasks: it outlives them unless it is marked for destruction, and others
// may use it meanwhile. So a restore attaches the segment of the dump as it is if it still exists, and makes it again,
// with its id, key, owner and contents, if not. Which segment it is, is told by the moment when its inode was made: ids
// and keys are used again.
//
// What a new segment does not get: the times and the pids of IPC_STAT.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/fd.h"
#include "image/store.h"
#include "kernel/proc.h"
#include "memory/shmem.h"
#include "memory/vma.h"
#include "proto/extension.pb.h"

namespace stasis {

struct SysvSegment {
  uint32_t id = 0;
  uint32_t key = 0;
  uint32_t uid = 0, gid = 0, cuid = 0, cgid = 0;
  uint32_t mode = 0;  // with SHM_DEST and SHM_LOCKED
  uint64_t size_bytes = 0;
  uint32_t huge_flags = 0;          // SHM_HUGETLB and the size of its pages, or 0
  std::optional<uint64_t> born_ns;  // of its inode; dumps of other programs do not tell

  std::string describe() const;
  uint64_t page_bytes() const;
  // What attaching it maps.
  uint64_t mapped_bytes() const;
};

// Dump: the segments of a tree. Before any other memory object gets a number.
class SysvShmTable {
 public:
  // `vma` is an attachment of a stopped process. A segment that is new here is added to `objects`, for its contents.
  // Throws UNSUPPORTED_MAPPING.
  void add(const ProcDir& proc, const Mapping& mapping, const Vma& vma, const std::string& who,
           std::vector<MemoryObject>& objects);
  void write_images(ImageStore& store, uint32_t ipc_namespace) const;
  void encode_extension(pb::extension_head& head) const;

 private:
  std::map<uint64_t, SysvSegment> segments_;
};

// Restore: reads ipcns-shm-ID.img. `head` may be null. Throws IMAGE_CORRUPT.
std::map<uint64_t, SysvSegment> read_segments(const ImageStore& store, uint32_t ipc_namespace,
                                              const pb::extension_head* head);

// One attaching call of a process, as far as it is still mapped: pieces that are as far apart as in the segment.
// shmdt(2) takes all pieces of one attaching call away, and no others.
struct SysvAttachment {
  uint64_t segment = 0;
  uint64_t base = 0;  // where the segment begins, or would
  bool read_only = false;
  std::vector<size_t> pieces;  // indices into the areas, ascending
};
std::vector<SysvAttachment> attachments_of(std::span<const Vma> areas);
// Takes out of `inherited` (by address) the areas of attachments that are not wholly among them.
void drop_parts_of_attachments(std::span<const Vma> areas, std::vector<AddressRange>& inherited);

// The segments of a restore. Whatever it made goes with it, until release().
class RestoredSegments {
 public:
  // Nothing is changed. Throws IPC_ID_TAKEN when another segment has an id or a key. Segments that still exist are
  // held.
  explicit RestoredSegments(const std::map<uint64_t, SysvSegment>& segments);
  ~RestoredSegments();
  RestoredSegments(const RestoredSegments&) = delete;
  RestoredSegments& operator=(const RestoredSegments&) = delete;

  // Makes the others. Those that are marked for destruction live as long as this object holds them or tasks do.
  void create(const ImageStore& store);
  // All tasks have attached what they had: nothing is held or removed any more.
  void release();

 private:
  struct Held {
    const SysvSegment* segment;
    void* address = nullptr;  // where this program has attached it
    bool made = false;
  };
  void make(Held& held, const ImageStore& store);

  std::vector<Held> held_;
};

}  // namespace stasis
