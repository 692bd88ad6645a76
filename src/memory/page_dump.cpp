#include "memory/page_dump.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "base/page_size.h"
#include "base/workers.h"
#include "kernel/process.h"
#include "kernel/uapi.h"
#include "memory/block_io.h"
#include "memory/pieces.h"
#include "memory/shmem.h"

namespace stasis {

// A piece of the pages file and where its bytes are now: in the task, in the object, or (BUFFER) in this process.
struct DumpPiece : PagePiece {
  enum class Source { READABLE, FORCED, BUFFER };
  Source source;
};

// What pieces are read from.
struct PageOrigin {
  pid_t pid = 0;  // 0: an object
  int fd = -1;    // /proc/PID/mem, or the object
  std::string name;
};

struct PageCopy::Body {
  PageOrigin origin;
  uint64_t scanned_pages = 0;
  std::vector<PageRange> ranges;
  std::vector<DumpPiece> pieces;  // offsets in a pages file that begins with them
  const char* kept = nullptr;     // all of it, if there was room

  void add(uint64_t vaddr, uint64_t nr_pages, uint32_t flags, DumpPiece::Source source, uint64_t address) {
    const uint64_t offset = pieces.empty() ? 0 : pieces.back().file_offset + pieces.back().bytes;
    pieces.push_back({{address, nr_pages * page_size_bytes(), offset}, source});
    ranges.push_back({vaddr, nr_pages, flags});
  }
};

namespace {

using Source = DumpPiece::Source;

constexpr uint64_t huge_page_bytes = uint64_t{2} << 20;

// ---- what goes into the page map of a task ----

std::vector<uint64_t> stack_pages(std::span<const uint64_t> stack_pointers) {
  std::vector<uint64_t> pages;
  pages.reserve(stack_pointers.size());
  for (uint64_t sp : stack_pointers) pages.push_back(sp - sp % page_size_bytes());
  std::sort(pages.begin(), pages.end());
  pages.erase(std::unique(pages.begin(), pages.end()), pages.end());
  return pages;
}

// A run of an area that may be filled lazily; the page that a thread stands on may not, since the thread needs it to
// run its first instruction.
template <class Body>
void add_lazy_run(Body& list, const PageRun& run, Source source, std::span<const uint64_t> stacks) {
  const uint64_t page = page_size_bytes();
  const uint64_t end = run.start + run.nr_pages * page;
  uint64_t at = run.start;
  const auto add = [&](uint64_t to, uint32_t flags) {
    if (to > at) list.add(at, (to - at) / page, flags, source, at);
    at = to;
  };
  for (auto sp = std::lower_bound(stacks.begin(), stacks.end(), at); sp != stacks.end() && *sp < end; ++sp) {
    add(*sp, kPagePresent | kPageLazy);
    add(*sp + page, kPagePresent);
  }
  add(end, kPagePresent | kPageLazy);
}

template <class Body>
void add_vdso(Body& list, const Vma& vma, std::span<const std::byte> image) {
  if (image.size() != vma.size_bytes()) {
    throw Error(Reason::INTERNAL,
                fmt::format("the vdso has {} bytes and {} were given", vma.size_bytes(), image.size()));
  }
  list.add(vma.start, vma.size_bytes() / page_size_bytes(), kPagePresent, Source::BUFFER,
           reinterpret_cast<uint64_t>(image.data()));
}

// Whether the task shares anonymous pages with a parent or child, as far as a sample of its runs tells. Such pages must
// not be read by process_vm_readv: it pins them, and the kernel first gives the task a copy of its own of every page
// that it pins (gup_must_unshare(), Linux 5.19), in the freeze and for good.
bool shares_pages(const TaskPages& task) {
  if (task.has_relatives) return true;
  constexpr size_t kSamples = 16;
  const auto& runs = task.scan->runs;
  const size_t step = std::max<size_t>(1, runs.size() / kSamples);
  for (size_t i = 0; i < runs.size(); i += step) {
    // Also the middle of large runs.
    for (uint64_t page : {uint64_t{0}, runs[i].nr_pages / 2}) {
      const uint64_t address = runs[i].start + page * page_size_bytes();
      uint64_t entry = 0;
      if (::pread(task.pagemap_fd, &entry, sizeof entry,
                  static_cast<off_t>(address / page_size_bytes() * sizeof entry)) != sizeof entry)
        return true;
      constexpr uint64_t interesting = uapi::pm_present | uapi::pm_file | uapi::pm_mmap_exclusive;
      if ((entry & interesting) == uapi::pm_present) return true;
    }
  }
  return false;
}

template <class Body>
void add_task(Body& list, const TaskPages& task) {
  const std::vector<uint64_t> stacks = stack_pages(task.stack_pointers);
  const bool shared = shares_pages(task);
  size_t next_run = 0;
  for (size_t i = 0; i < task.vmas.size(); ++i) {
    const Vma& vma = task.vmas[i];
    if (vma.has(vma_status::vdso)) add_vdso(list, vma, task.vdso);
    const Source source = (vma.prot & PROT_READ) != 0 && !shared ? Source::READABLE : Source::FORCED;
    const bool lazy = vma.has(vma_status::anon_private) && !vma.is_locked();
    for (; next_run < task.scan->runs.size() && task.scan->runs[next_run].vma == i; ++next_run) {
      const PageRun& run = task.scan->runs[next_run];
      if (lazy) {
        add_lazy_run(list, run, source, stacks);
      } else {
        list.add(run.start, run.nr_pages, kPagePresent, source, run.start);
      }
    }
  }
}

// ---- reading ----

[[noreturn]] void read_failed(const PageOrigin& origin, int error_number) {
  if (error_number == ESRCH) {
    throw Error(Reason::TASK_VANISHED, "it ended while its memory was read").object(origin.name);
  }
  throw Error(Reason::SYSTEM, "cannot read its memory").object(origin.name).error_number(error_number);
}

// /proc/PID/mem reads what the task itself may not: the kernel sets FOLL_FORCE there (proc(5)).
void read_forced(const PageOrigin& origin, uint64_t address, char* to, uint64_t bytes) {
  while (bytes > 0) {
    const ssize_t n = ::pread(origin.fd, to, bytes, static_cast<off_t>(address));
    if (n < 0 && errno == EINTR) continue;
    if (n == 0) read_failed(origin, ESRCH);  // the address space is gone
    if (n < 0) {
      throw Error(Reason::UNSUPPORTED_MAPPING, fmt::format("the page at {:x} cannot be read", address))
          .object(origin.name)
          .error_number(errno)
          .remedy("it may be a guard page of a kernel that does not show them, or damaged memory");
    }
    to += n;
    address += static_cast<uint64_t>(n);
    bytes -= static_cast<uint64_t>(n);
  }
}

// The last page of an object may reach beyond its end.
void read_object(const PageOrigin& origin, uint64_t offset, char* to, uint64_t bytes) {
  while (bytes > 0) {
    const ssize_t n = ::pread(origin.fd, to, bytes, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) read_failed(origin, errno);
    if (n == 0) {
      std::memset(to, 0, bytes);
      return;
    }
    to += n;
    offset += static_cast<uint64_t>(n);
    bytes -= static_cast<uint64_t>(n);
  }
}

// Pieces that the task itself may read, in as few calls as possible. `local[i]` receives `remote[i]`.
void read_readable(const PageOrigin& origin, std::span<iovec> local, std::span<iovec> remote) {
  while (!remote.empty()) {
    ssize_t n = process_vm_readv(origin.pid, local, remote);
    if (n == -EINTR) continue;
    if (n < 0 && n != -EFAULT) read_failed(origin, static_cast<int>(-n));
    uint64_t moved = n < 0 ? 0 : static_cast<uint64_t>(n);
    size_t done = 0;
    while (done < remote.size() && moved >= remote[done].iov_len) moved -= remote[done++].iov_len;
    if (done < remote.size()) {
      // A page in this piece refuses (its protection changed, it is a guard page ...).
      read_forced(origin, reinterpret_cast<uint64_t>(remote[done].iov_base) + moved,
                  static_cast<char*>(local[done].iov_base) + moved, remote[done].iov_len - moved);
      ++done;
    }
    local = local.subspan(done);
    remote = remote.subspan(done);
  }
}

// Reads the pieces of a block, one after the other, to `to`.
void read_block(const PageOrigin& origin, std::span<const DumpPiece> pieces, char* to) {
  iovec local[max_block_pieces];
  iovec remote[max_block_pieces];
  size_t count = 0;
  for (const DumpPiece& piece : pieces) {
    if (piece.source == Source::BUFFER) {
      std::memcpy(to, reinterpret_cast<const char*>(piece.address), piece.bytes);
    } else if (origin.pid == 0) {
      read_object(origin, piece.address, to, piece.bytes);
    } else if (piece.source == Source::FORCED) {
      read_forced(origin, piece.address, to, piece.bytes);
    } else {
      local[count] = {to, piece.bytes};
      remote[count++] = {reinterpret_cast<void*>(piece.address), piece.bytes};
    }
    to += piece.bytes;
  }
  read_readable(origin, std::span(local, count), std::span(remote, count));
}

}  // namespace

PageSnapshot::PageSnapshot(uint64_t memory_budget_bytes, unsigned threads)
    : threads_(threads != 0 ? threads : usable_processors()), budget_bytes_(memory_budget_bytes) {
  if (budget_bytes_ == 0) return;
  mapped_bytes_ = budget_bytes_ + huge_page_bytes;
  void* map =
      ::mmap(nullptr, mapped_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (map == MAP_FAILED) {
    budget_bytes_ = 0;
    return;
  }
  mapped_ = static_cast<char*>(map);
  const uint64_t misaligned = reinterpret_cast<uint64_t>(map) % huge_page_bytes;
  arena_ = mapped_ + (misaligned == 0 ? 0 : huge_page_bytes - misaligned);
  ::madvise(arena_, budget_bytes_, MADV_HUGEPAGE);
}

void PageSnapshot::expect(uint64_t bytes) {
  const uint64_t huge_pages = (bytes + huge_page_bytes - 1) / huge_page_bytes * huge_page_bytes;
  if (arena_ != nullptr) ::madvise(arena_, std::min(budget_bytes_, huge_pages), MADV_POPULATE_WRITE);
}

PageSnapshot::~PageSnapshot() {
  release_arena();
}

void PageSnapshot::release_arena() noexcept {
  if (mapped_ != nullptr) ::munmap(mapped_, mapped_bytes_);
  mapped_ = arena_ = nullptr;
  budget_bytes_ = used_bytes_ = 0;
}

char* PageSnapshot::reserve(uint64_t bytes) {
  uint64_t used = used_bytes_.load();
  do {
    if (bytes > budget_bytes_ - used) return nullptr;
  } while (!used_bytes_.compare_exchange_weak(used, used + bytes));
  return arena_ + used;
}

PageCopy::PageCopy() : body_(std::make_unique<Body>()) {}
PageCopy::PageCopy(PageCopy&&) noexcept = default;
PageCopy& PageCopy::operator=(PageCopy&&) noexcept = default;
PageCopy::~PageCopy() = default;

bool PageCopy::kept() const {
  return body_->kept != nullptr || body_->pieces.empty();
}

PageCopy PageSnapshot::copy(const TaskPages& task) {
  PageCopy result;
  result.body_->origin = {task.pid, task.memory_fd, task.name};
  result.body_->scanned_pages = task.scan->scanned_pages;
  add_task(*result.body_, task);
  if (!task.stays) keep(*result.body_);
  return result;
}

PageCopy PageSnapshot::copy_object(int object_fd, const std::string& object_name) {
  PageCopy result;
  PageCopy::Body& body = *result.body_;
  body.origin = {0, object_fd, object_name};
  struct stat info;
  if (::fstat(object_fd, &info) != 0) read_failed(body.origin, errno);
  body.scanned_pages = static_cast<uint64_t>(info.st_size) / page_size_bytes();
  for (const AddressRange& range : data_ranges(object_fd, object_name))
    body.add(range.start, range.size_bytes() / page_size_bytes(), kPagePresent, Source::READABLE, range.start);
  keep(body);
  return result;
}

void PageSnapshot::keep(PageCopy::Body& body) {
  const std::span<const DumpPiece> pieces(body.pieces);
  if (pieces.empty()) return;
  char* to = reserve(total_bytes(pieces));
  if (to == nullptr) return;
  share_out(pieces, threads_, [&](std::span<const DumpPiece> share) {
    for_each_block(share, [&](std::span<const DumpPiece> block, uint64_t) {
      read_block(body.origin, block, to + block.front().file_offset);
    });
  });
  body.kept = to;
}

void PageSnapshot::store(const PageCopy& copy, PagemapWriter& writer) {
  const PageCopy::Body& body = *copy.body_;
  for (const PageRange& range : body.ranges) writer.add(range);
  const std::span<const DumpPiece> pieces(body.pieces);
  const uint64_t bytes = total_bytes(pieces);
  const bool object = body.origin.pid == 0;
  (object ? stats_.shared_scanned_pages : stats_.scanned_pages) += body.scanned_pages;
  (object ? stats_.shared_written_pages : stats_.written_pages) += bytes / page_size_bytes();
  if (pieces.empty()) return;
  if (body.kept != nullptr) {
    kept_.push_back({writer.pages_fd(), writer.pages_name(), body.kept, bytes});
    return;
  }
  share_out(pieces, threads_, [&, name = writer.pages_name()](std::span<const DumpPiece> share) {
    const PageBuffer buffer = page_buffer(std::min<uint64_t>(copy_block_bytes, total_bytes(share)));
    for_each_block(share, [&](std::span<const DumpPiece> block, uint64_t block_bytes) {
      read_block(body.origin, block, buffer.get());
      write_whole(writer.pages_fd(), buffer.get(), block_bytes, block.front().file_offset, name, Reason::IMAGE_WRITE);
    });
  });
}

void PageSnapshot::finish() {
  for (const Kept& kept : kept_)
    write_whole(kept.pages_fd, kept.bytes, kept.size_bytes, 0, kept.pages_name, Reason::IMAGE_WRITE);
  kept_.clear();
  release_arena();
}

}  // namespace stasis
