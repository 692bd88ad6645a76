#include "memory/fill.h"

#include <fmt/format.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "base/workers.h"
#include "kernel/process.h"
#include "memory/block_io.h"

namespace stasis {

namespace {

[[noreturn]] void write_failed(const FillTarget& target, uint64_t address, int error_number) {
  if (error_number == ESRCH) {
    throw Error(Reason::TASK_VANISHED, "it ended while its memory was filled").object(target.name);
  }
  throw Error(Reason::RESTORE_CALL_FAILED, fmt::format("cannot write its memory at {:x}", address))
      .object(target.name)
      .error_number(error_number);
}

// /proc/PID/mem writes where the task itself may not; that breaks sharing with the file as a write would (proc(5)).
void write_forced(const FillTarget& target, uint64_t address, const char* from, uint64_t bytes) {
  const int memory_fd = target.memory_fd();
  while (bytes > 0) {
    const ssize_t n = ::pwrite(memory_fd, from, bytes, static_cast<off_t>(address));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) write_failed(target, address, n < 0 ? errno : ESRCH);
    from += n;
    address += static_cast<uint64_t>(n);
    bytes -= static_cast<uint64_t>(n);
  }
}

void write_vectors(const FillTarget& target, std::span<iovec> local, std::span<iovec> remote) {
  while (!remote.empty()) {
    const ssize_t n = process_vm_writev(target.pid, local, remote);
    if (n == -EINTR) continue;
    if (n < 0 && n != -EFAULT) {
      write_failed(target, reinterpret_cast<uint64_t>(remote.front().iov_base), static_cast<int>(-n));
    }
    uint64_t moved = n < 0 ? 0 : static_cast<uint64_t>(n);
    size_t done = 0;
    while (done < remote.size() && moved >= remote[done].iov_len) moved -= remote[done++].iov_len;
    if (done < remote.size()) {
      // An area that is not writable begins in this piece.
      write_forced(target, reinterpret_cast<uint64_t>(remote[done].iov_base) + moved,
                   static_cast<const char*>(local[done].iov_base) + moved, remote[done].iov_len - moved);
      ++done;
    }
    local = local.subspan(done);
    remote = remote.subspan(done);
  }
}

// Collects transfers into calls of many iovecs.
class Scatter {
 public:
  explicit Scatter(const FillTarget& target) : target_(target) {}

  void add(uint64_t address, char* from, uint64_t bytes) {
    if (count_ == max_block_pieces) flush();
    local_[count_] = {from, bytes};
    remote_[count_++] = {reinterpret_cast<void*>(address), bytes};
  }
  void flush() {
    write_vectors(target_, std::span(local_.data(), count_), std::span(remote_.data(), count_));
    count_ = 0;
  }

 private:
  const FillTarget& target_;
  std::array<iovec, max_block_pieces> local_;
  std::array<iovec, max_block_pieces> remote_;
  size_t count_ = 0;
};

void read_pages(const PagemapReader& reader, uint64_t file_offset, char* to, uint64_t bytes) {
  read_whole(reader.pages_fd(), to, bytes, file_offset, reader.pages_name(), Reason::IMAGE_TRUNCATED);
}

void write_pieces(const FillTarget& target, const PagemapReader& reader, std::span<const PagePiece> pieces) {
  const PageBuffer buffer = page_buffer(std::min<uint64_t>(copy_block_bytes, total_bytes(pieces)));
  for_each_block(pieces, [&](std::span<const PagePiece> block, uint64_t bytes) {
    read_pages(reader, block.front().file_offset, buffer.get(), bytes);
    Scatter scatter(target);
    char* from = buffer.get();
    for (const PagePiece& piece : block) {
      scatter.add(piece.address, from, piece.bytes);
      from += piece.bytes;
    }
    scatter.flush();
  });
}

// A piece of a child, and where the page map of its parent has pages for the same addresses.
struct ChildPiece : PagePiece {
  static constexpr uint64_t kNone = UINT64_MAX;
  uint64_t parents_offset = kNone;

  bool has_parents() const { return parents_offset != kNone; }
  void advance(uint64_t count) noexcept {
    PagePiece::advance(count);
    if (has_parents()) parents_offset += count;
  }
};

struct ChildParts {
  std::vector<ChildPiece> pieces;  // ascending
  std::vector<AddressRange> drop;
};

// The parts of `pieces` inside of `ranges`; both ascend in addresses.
std::vector<PagePiece> parts_inside(std::span<const PagePiece> pieces, std::span<const AddressRange> ranges) {
  std::vector<PagePiece> parts;
  size_t at = 0;
  for (const PagePiece& piece : pieces) {
    while (at < ranges.size() && ranges[at].end <= piece.address) ++at;
    for (size_t i = at; i < ranges.size() && ranges[i].start < piece.address + piece.bytes; ++i) {
      PagePiece part = piece;
      if (ranges[i].start > part.address) part.advance(ranges[i].start - part.address);
      part.bytes = std::min(part.bytes, ranges[i].end - part.address);
      parts.push_back(part);
    }
  }
  return parts;
}

PagePiece take_front(PagePiece& piece, uint64_t bytes) {
  PagePiece front = piece;
  front.bytes = bytes;
  piece.advance(bytes);
  return front;
}

// Walks both lists of pieces side by side.
ChildParts compare_lists(std::span<const PagePiece> own, std::span<const PagePiece> shared) {
  ChildParts parts;
  const auto drop = [&](uint64_t start, uint64_t bytes) {
    if (!parts.drop.empty() && parts.drop.back().end == start) {
      parts.drop.back().end += bytes;
    } else {
      parts.drop.push_back({start, start + bytes});
    }
  };
  size_t next = 0;
  PagePiece theirs{};
  const auto refill = [&] {
    if (theirs.bytes == 0 && next < shared.size()) theirs = shared[next++];
    return theirs.bytes != 0;
  };
  for (PagePiece mine : own) {
    while (mine.bytes > 0) {
      if (!refill() || theirs.address >= mine.address + mine.bytes) {
        parts.pieces.push_back({take_front(mine, mine.bytes)});
      } else if (theirs.address < mine.address) {
        const uint64_t before = std::min(theirs.bytes, mine.address - theirs.address);
        drop(theirs.address, before);
        theirs.advance(before);
      } else if (mine.address < theirs.address) {
        parts.pieces.push_back({take_front(mine, theirs.address - mine.address)});
      } else {
        const uint64_t both = std::min(mine.bytes, theirs.bytes);
        const PagePiece front = take_front(mine, both);
        parts.pieces.push_back({front, take_front(theirs, both).file_offset});
      }
    }
  }
  while (refill()) {
    drop(theirs.address, theirs.bytes);
    theirs.bytes = 0;
  }
  return parts;
}

// Writes the pages of `bytes` at `address` that differ; returns how many do not.
uint64_t write_differing(Scatter& scatter, uint64_t address, char* own, const char* parents, uint64_t bytes) {
  const uint64_t page = page_size_bytes();
  uint64_t equal_pages = 0;
  uint64_t run_start = 0;
  for (uint64_t at = 0; at < bytes; at += page) {
    if (std::memcmp(own + at, parents + at, page) != 0) continue;
    if (at > run_start) scatter.add(address + run_start, own + run_start, at - run_start);
    run_start = at + page;
    ++equal_pages;
  }
  if (bytes > run_start) scatter.add(address + run_start, own + run_start, bytes - run_start);
  return equal_pages;
}

}  // namespace

FillPlan::FillPlan(const PagemapReader& pages, std::span<const Vma> areas, std::string shown_name)
    : reader_(&pages), shown_name_(std::move(shown_name)), stored_pages_(areas.size()) {
  size_t area = 0;
  for (const StoredRange& stored : pages.ranges()) {
    if ((stored.range.flags & kPagePresent) == 0) {
      throw Error(Reason::IMAGE_UNSUPPORTED,
                  fmt::format("the pages at {:x} are not in these images", stored.range.vaddr))
          .object(shown_name_)
          .remedy("dump again without --prev-images-dir and --lazy-pages");
    }
    PagePiece rest{stored.range.vaddr, stored.range.nr_pages * page_size_bytes(), stored.pages_offset_bytes};
    while (rest.bytes > 0) {
      while (area < areas.size() && areas[area].end <= rest.address) ++area;
      if (area == areas.size() || areas[area].start > rest.address || !areas[area].stores_pages()) {
        throw Error(Reason::IMAGE_CORRUPT, fmt::format("the page at {:x} belongs to no mapping", rest.address))
            .object(shown_name_);
      }
      const PagePiece part = take_front(rest, std::min(rest.bytes, areas[area].end - rest.address));
      add(part, area, areas[area].has(vma_status::vdso));
    }
  }
}

void FillPlan::add(const PagePiece& piece, size_t area, bool is_vdso) {
  stored_pages_[area] += piece.bytes / page_size_bytes();
  if (is_vdso) return;
  pages_ += piece.bytes / page_size_bytes();
  if (!pieces_.empty()) {
    PagePiece& last = pieces_.back();
    if (last.address + last.bytes == piece.address && last.file_offset + last.bytes == piece.file_offset) {
      last.bytes += piece.bytes;
      return;
    }
  }
  pieces_.push_back(piece);
}

FillStats FillPlan::fill(const FillTarget& target, unsigned threads) const {
  share_out(std::span(pieces_), threads != 0 ? threads : usable_processors(),
            [&](std::span<const PagePiece> share) { write_pieces(target, *reader_, share); });
  return {pages_, 0};
}

const FillPlan::Kept& FillPlan::keep_bytes() const {
  std::call_once(kept_->once, [this] {
    static std::atomic<uint64_t> all_kept{0};
    constexpr uint64_t kMostKept = uint64_t{64} << 20;
    if (pieces_.empty()) return;
    const uint64_t start = pieces_.front().file_offset;
    const uint64_t bytes = pieces_.back().file_offset + pieces_.back().bytes - start;
    if (all_kept.fetch_add(bytes) + bytes > kMostKept) {
      all_kept -= bytes;
      return;
    }
    PageBuffer buffer = page_buffer(bytes);
    read_pages(*reader_, start, buffer.get(), bytes);
    kept_->bytes = std::move(buffer);
    kept_->file_offset = start;
  });
  return *kept_;
}

FillPlan::ChildFill FillPlan::fill_child(const FillTarget& target, const FillPlan& parent,
                                         std::span<const AddressRange> inherited) const {
  ChildParts parts = compare_lists(pieces_, parts_inside(parent.pieces_, inherited));
  ChildFill result;
  result.drop = std::move(parts.drop);
  const std::span<const ChildPiece> pieces(parts.pieces);
  const bool compares = std::ranges::any_of(pieces, &ChildPiece::has_parents);
  const Kept* kept = compares ? &parent.keep_bytes() : nullptr;
  const PageBuffer buffer = page_buffer(std::min<uint64_t>(copy_block_bytes, total_bytes(pieces)));
  const PageBuffer parents = page_buffer(compares && !kept->bytes ? copy_block_bytes : 0);
  for_each_block(pieces, [&](std::span<const ChildPiece> block, uint64_t bytes) {
    read_pages(*reader_, block.front().file_offset, buffer.get(), bytes);
    Scatter scatter(target);
    char* own = buffer.get();
    for (const ChildPiece& piece : block) {
      if (!piece.has_parents()) {
        scatter.add(piece.address, own, piece.bytes);
      } else if (kept->bytes) {
        const char* theirs = kept->bytes.get() + (piece.parents_offset - kept->file_offset);
        result.stats.kept_pages += write_differing(scatter, piece.address, own, theirs, piece.bytes);
      } else {
        read_pages(*parent.reader_, piece.parents_offset, parents.get(), piece.bytes);
        result.stats.kept_pages += write_differing(scatter, piece.address, own, parents.get(), piece.bytes);
      }
      own += piece.bytes;
    }
    scatter.flush();
  });
  result.stats.written_pages = pages_ - result.stats.kept_pages;
  return result;
}

}  // namespace stasis
