// Puts the stored pages of a task into a stopped puppet that has its areas mapped.
//
// Reading a block of the pages file into a small buffer and handing it over by process_vm_writev is as fast as every
// other way from outside and twice as fast as reads made by the puppet (transfer_bench.cpp); unlike a mapping of
// the pages file it turns a file that shrinks meanwhile into an error, not into SIGBUS.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "image/pagemap.h"
#include "memory/block_io.h"
#include "memory/pieces.h"
#include "memory/vma.h"

namespace stasis {

struct FillTarget {
  pid_t pid = 0;
  // /proc/PID/mem open for writing: for areas that the task itself may not write. Called when one is met.
  std::function<int()> memory_fd;
  std::string name;  // for messages
};

struct FillStats {
  uint64_t written_pages = 0;
  uint64_t kept_pages = 0;  // equal to the parent's, left shared with it
};

// What goes where, made and checked before any task exists.
class FillPlan {
 public:
  // The reader outlives the plan and stays in place. Throws IMAGE_CORRUPT when pages lie outside of the areas that keep
  // them, IMAGE_UNSUPPORTED when pages are not in these images (parent, lazy).
  FillPlan(const PagemapReader& pages, std::span<const Vma> areas, std::string shown_name);

  // Stored pages of area `index`: the argument of maps_writable_first() and locks_on_fault().
  uint64_t stored_pages(size_t index) const { return stored_pages_[index]; }
  // Of all areas, without the vdso.
  uint64_t pages() const { return pages_; }

  // Fills a task that shares nothing with its parent.
  FillStats fill(const FillTarget& target, unsigned threads = 0) const;

  struct ChildFill {
    FillStats stats;
    // Pages that the parent has and the child has not: the child drops them with MADV_DONTNEED.
    std::vector<AddressRange> drop;
  };
  // Fills a task that was cloned from a parent filled by `parent`. `inherited`: ranges of areas that were the same in
  // both, ascending. A page that is equal there stays the parent's (copy-on-write); everything else is written.
  ChildFill fill_child(const FillTarget& target, const FillPlan& parent, std::span<const AddressRange> inherited) const;

 private:
  // What is stored, read once for all children that are compared with it.
  struct Kept {
    std::once_flag once;
    PageBuffer bytes{nullptr, nullptr};  // null: too much to be kept
    uint64_t file_offset = 0;
  };
  void add(const PagePiece& piece, size_t area, bool is_vdso);
  const Kept& keep_bytes() const;

  const PagemapReader* reader_;
  std::string shown_name_;
  std::vector<PagePiece> pieces_;  // ascending, without the vdso
  std::vector<uint64_t> stored_pages_;
  uint64_t pages_ = 0;
  std::unique_ptr<Kept> kept_ = std::make_unique<Kept>();
};

}  // namespace stasis
