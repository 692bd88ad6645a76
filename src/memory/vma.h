// Mappings as the image describes them, and what each mapping of a live task is.
//
// A Vma is plain data and the same type in both directions: classify() makes the list of a stopped task from smaps,
// encode() and decode() are the record of mm-PID.img. Which file a mapping belongs to is known to the caller only:
// classify() leaves `shmid` of file mappings 0 and says in `mapping` which line it came from. Shared anonymous memory
// and memfds count as files without a path (status `memfd`); images of older programs have status `anon_shared`. An
// attached segment of System V has both `sysv_shm` and `anon_shared`, and its id for `shmid`.
//
// The record does not carry everything that smaps shows as VmFlags. What is missing, and what a restore does about it:
//   ac  a private area is or was writable (accounted memory). A writable area gets it by itself, another one is mapped
//       writable first (maps_writable_first). Areas that differ in it do not merge again when their protection becomes
//       equal. extension.img tells it; without that, one that has stored pages was written once.
//   lf  locked by mlock2(MLOCK_ONFAULT). extension.img tells it; without that: mlock() populates every page, so a
//       writable locked area with pages that are not stored was locked on fault (locks_on_fault).
//   sl  sealed by mseal(): in extension.img.
//   nh  set by MAP_STACK since Linux 6.7 and by MADV_NOHUGEPAGE: carried as madvise advice, the flag is the same.
//   sh, mw of a shared file mapping follow from the open mode in fdflags and from seals; mr, me from the file and its
//   mount.
//   gd  the real start is in /proc since Linux 4.12; older kernels hid the gap page of areas that grow down.
//   wf, dd of a droppable area and de, dd, io, pf of vvar come with the kind of mapping.
//   sd  soft-dirty, and names given with PR_SET_VMA_ANON_NAME, are lost.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/address_range.h"
#include "kernel/proc_maps.h"

namespace stasis::pb {
class vma_entry;
class mm_entry;
}  // namespace stasis::pb

namespace stasis {

// Bits of Vma::status.
namespace vma_status {
inline constexpr uint32_t regular = 0x1;  // is restored
inline constexpr uint32_t vsyscall = 0x4;
inline constexpr uint32_t vdso = 0x8;
inline constexpr uint32_t heap = 0x20;
inline constexpr uint32_t file_private = 0x40;
inline constexpr uint32_t file_shared = 0x80;
inline constexpr uint32_t anon_shared = 0x100;
inline constexpr uint32_t anon_private = 0x200;
inline constexpr uint32_t sysv_shm = 0x400;
inline constexpr uint32_t packet_socket = 0x800;
inline constexpr uint32_t vvar = 0x1000;
inline constexpr uint32_t aio_ring = 0x2000;
inline constexpr uint32_t memfd = 0x4000;
inline constexpr uint32_t shadow_stack = 0x8000;
inline constexpr uint32_t guard = 0x10000;
inline constexpr uint32_t plugin_device = 0x8000000;
}  // namespace vma_status

// In the place of MAP_PRIVATE or MAP_SHARED (Linux 6.11).
inline constexpr uint32_t map_droppable = 0x8;

struct Vma {
  uint64_t start = 0;
  uint64_t end = 0;
  uint64_t pgoff_bytes = 0;
  uint64_t shmid = 0;               // file id of a file mapping; number of an object with status anon_shared; segment
  uint32_t prot = 0;                // PROT_*
  uint32_t flags = 0;               // MAP_*; MAP_FIXED is not among them
  uint32_t status = 0;              // vma_status
  uint64_t madv = 0;                // bit n: madvise(n) is in effect
  std::optional<uint32_t> fdflags;  // O_RDONLY, O_WRONLY, O_RDWR: how the mapped file was opened

  // In the extension image (vma_extension.h).
  bool was_writable = false;          // VmFlag ac
  std::optional<bool> lock_on_fault;  // VmFlag lf; empty: not told
  bool sealed = false;                // VmFlag sl
  bool told = false;                  // restore: there was an extension image

  // Known at a restore only: it is mapped with its file, which a task has to make.
  bool mapped_later = false;

  // Known at a dump only; not in the image.
  size_t mapping = 0;  // index in the list given to classify()

  uint64_t size_bytes() const noexcept { return end - start; }
  bool has(uint32_t status_bits) const noexcept { return (status & status_bits) == status_bits; }
  // Of a file in the images: also of a memory object, which has no path.
  bool is_file() const noexcept { return (status & (vma_status::file_private | vma_status::file_shared)) != 0; }
  // An attached segment of System V.
  bool is_segment() const noexcept { return has(vma_status::sysv_shm); }
  // Of a memory object of older images.
  bool is_nameless_object() const noexcept { return has(vma_status::anon_shared) && !is_segment(); }
  bool is_huge() const noexcept;
  bool is_private() const noexcept;
  bool is_locked() const noexcept;
  // Its contents may be in a page map of the task: private memory that keeps what is written to it, and the vdso.
  bool stores_pages() const noexcept;
  bool operator==(const Vma&) const = default;
};

// The mappings of one task, ascending, of a process that is stopped. Consecutive vvar ranges become one. Throws
// UNSUPPORTED_MAPPING for what cannot be saved. Guard regions of private memory are found by the page scan.
std::vector<Vma> classify(std::span<const Mapping> smaps);

// "7f0000000000-7f0000001000 rw-p (private file)"
std::string describe(const Vma& vma);

void encode(const Vma& vma, pb::vma_entry& entry);
// A guard region of MADV_GUARD_INSTALL; such records come after those of all areas.
void encode_guard(const AddressRange& guard, pb::vma_entry& entry);

struct VmaList {
  std::vector<Vma> areas;            // ascending, without overlap
  std::vector<AddressRange> guards;  // guard regions inside of areas
};
// Throws IMAGE_CORRUPT, and IMAGE_UNSUPPORTED for a kind that cannot be restored.
VmaList decode_vmas(const pb::mm_entry& mm, const std::string& shown_name);
// Without any check.
Vma decode(const pb::vma_entry& entry);

// How an area is restored, as far as it follows from its pages (see above). `stored_pages`: pages of the area that are
// in the task's page map.
bool maps_writable_first(const Vma& vma, uint64_t stored_pages) noexcept;
bool locks_on_fault(const Vma& vma, uint64_t stored_pages) noexcept;

}  // namespace stasis
