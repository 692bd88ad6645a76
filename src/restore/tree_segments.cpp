// Attaching segments of System V shared memory in the puppets of a tree.
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/syscall.h>

#include <algorithm>

#include "base/error.h"
#include "base/page_size.h"
#include "objects/ipc/sysv_shm.h"
#include "restore/tree.h"
#include "tracee/area.h"

namespace stasis {

namespace {

// The pieces are all of the segment, in its order and nothing beyond it.
bool is_whole(const SysvAttachment& a, std::span<const Vma> areas, uint64_t bytes) {
  uint64_t at = a.base;
  for (const size_t i : a.pieces) {
    if (areas[i].start != at) return false;
    at = areas[i].end;
  }
  return at == a.base + bytes;
}

uint64_t free_range(const RestorePlan& plan, const AddressRange& vdso, const SysvSegment& s, const std::string& who) {
  const uint64_t page = s.page_bytes(), bytes = s.mapped_bytes() + page - page_size_bytes();
  std::vector<Mapping> taken = taken_ranges(plan);
  if (vdso.start != vdso.end) {
    Mapping& m = taken.emplace_back();
    m.start = vdso.start, m.end = vdso.end;
    std::ranges::sort(taken, {}, &Mapping::start);
  }
  const uint64_t address = find_free_range(taken, bytes);
  if (address == 0)
    throw Error(Reason::NO_ROOM_FOR_BATCH,
                fmt::format("no address range of {} bytes is free, to attach a segment", bytes))
        .object(who);
  return (address + page - 1) / page * page;
}

}  // namespace

void PuppetTree::attach_segments(const PlannedProcess& p, std::span<const AddressRange> inherited, SyscallBatch& batch,
                                 const std::function<void()>& make_room) const {
  const auto& areas = p.vmas.areas;
  for (const SysvAttachment& a : attachments_of(areas)) {
    if (std::ranges::binary_search(inherited, areas[a.pieces.front()].start, {}, &AddressRange::start)) continue;
    const SysvSegment& segment = plan_.segments.at(a.segment);
    const uint64_t bytes = segment.mapped_bytes();
    const uint32_t attached = a.read_only ? uint32_t{PROT_READ} : uint32_t{PROT_READ | PROT_WRITE};
    const int flags = SHM_REMAP | (a.read_only ? SHM_RDONLY : 0);
    if (is_whole(a, areas, bytes)) {
      batch.must(SYS_shmat, {a.segment, a.base, flags});
    } else {
      // The pieces are moved from a place where all of it fits.
      const uint64_t whole = free_range(plan_, vdso_.beside(p), segment, p.describe());
      batch.must(SYS_shmat, {a.segment, whole, flags});
      for (const size_t i : a.pieces) {
        const Vma& v = areas[i];
        const uint64_t there = std::min(v.size_bytes(), bytes - v.pgoff_bytes);
        batch.must(SYS_mremap, {whole + v.pgoff_bytes, there, v.size_bytes(), MREMAP_MAYMOVE | MREMAP_FIXED, v.start});
        make_room();
      }
      batch.must(SYS_munmap, {whole, bytes});
    }
    for (const size_t i : a.pieces) {
      if (areas[i].prot != attached) batch.must(SYS_mprotect, {areas[i].start, areas[i].size_bytes(), areas[i].prot});
      make_room();
    }
  }
}

}  // namespace stasis
