// Copies pages of stopped tasks and of shared objects into pages files.
//
// Three steps, so that tasks which go on running are held as briefly as possible. copy(), while they are stopped, finds
// out what to store and copies it into memory as long as the budget lasts; it may run for several tasks at once.
// store() fills the page map, and copies what was not kept straight into the file: then the task must still be stopped.
// finish() writes what was kept. Copying into huge pages of our own takes a quarter (small tasks) to two thirds (large
// ones) of the time of writing to tmpfs, but costs the write on top later: a dump that ends the tasks uses no budget.
//
// The ways that were tried are in transfer_bench.cpp. Fastest from 1 MiB to 1 GiB, on tmpfs and on disk:
// process_vm_readv into a small reused buffer and large writes, on two threads when it is much.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "image/pagemap.h"
#include "memory/page_scan.h"
#include "memory/vma.h"

namespace stasis {

// Counts and times of a run, as the statistics file shows them.
struct PageDumpStats {
  uint64_t scanned_pages = 0;
  uint64_t written_pages = 0;
  uint64_t shared_scanned_pages = 0;
  uint64_t shared_written_pages = 0;
};

// A stopped task. Descriptors and buffers stay until it is stored.
struct TaskPages {
  pid_t pid = 0;
  int memory_fd = -1;          // /proc/PID/mem, for pages that the task itself may not read
  int pagemap_fd = -1;         // /proc/PID/pagemap, to see whether it shares pages with a relative
  bool has_relatives = false;  // a parent or child of it is dumped too: it probably does
  std::string name = {};       // for messages: "pid 42 (redis-server)"
  std::span<const Vma> vmas = {};
  const PageScan* scan = nullptr;                 // of these vmas; of use to copy() only, as they are
  std::span<const uint64_t> stack_pointers = {};  // of all threads
  // The whole vdso as it was before the task was borrowed: a batch may live in its tail while the pages are copied.
  std::span<const std::byte> vdso = {};
  bool stays = false;  // it does not run before it is stored: nothing needs to be kept
};

// What is stored of one task or object.
class PageCopy {
 public:
  PageCopy();
  PageCopy(PageCopy&&) noexcept;
  PageCopy& operator=(PageCopy&&) noexcept;
  ~PageCopy();
  // Whether the task is needed no more.
  bool kept() const;

 private:
  friend class PageSnapshot;
  struct Body;
  std::unique_ptr<Body> body_;
};

class PageSnapshot {
 public:
  // `memory_budget_bytes`: how much take() may keep. `threads` 0: as many as there are processors, at most 8.
  explicit PageSnapshot(uint64_t memory_budget_bytes, unsigned threads = 0);
  PageSnapshot(const PageSnapshot&) = delete;
  PageSnapshot& operator=(const PageSnapshot&) = delete;
  ~PageSnapshot();

  // Touches memory for as many bytes now, while the tasks still run: fresh memory is slow.
  void expect(uint64_t bytes);
  // Any thread, several at once.
  PageCopy copy(const TaskPages& task);
  // The touched pages of a shared memory object; `object_fd` is open for reading.
  PageCopy copy_object(int object_fd, const std::string& object_name);
  // `writer` is new, outlives finish() and is closed by the caller after it.
  void store(const PageCopy& copy, PagemapWriter& writer);
  // Writes what was kept, and gives the memory back. Not needed after an error.
  void finish();

  const PageDumpStats& stats() const { return stats_; }

 private:
  struct Kept {
    int pages_fd;
    std::string pages_name;
    const char* bytes;
    uint64_t size_bytes;
  };

  void keep(PageCopy::Body& body);
  char* reserve(uint64_t bytes);
  void release_arena() noexcept;

  unsigned threads_;
  uint64_t budget_bytes_;
  std::atomic<uint64_t> used_bytes_{0};
  uint64_t mapped_bytes_ = 0;
  char* mapped_ = nullptr;  // the arena lies in it, aligned to a huge page
  char* arena_ = nullptr;
  std::vector<Kept> kept_;
  PageDumpStats stats_;
};

}  // namespace stasis
