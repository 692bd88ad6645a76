// io_uring(7): rings at rest. Made again by the task that had them, with the same parameters, counters, contents,
// registered files, buffers and eventfd; their mappings come back to their addresses.
//
// How a ring was set up and whether requests are in flight is known to the kernel alone (io_uring_kernel.h). A ring
// that does not come to rest is refused (IO_URING_BUSY). Refused are also rings with polling threads, personalities,
// provided buffers, restrictions, and memory of the program's own.
//
// The counters of a new ring begin at 0, and the kernel has copies of them that nobody can set: it counts up by
// requests that do nothing (0.1 to 0.4 us each).
//
// Not asked: whether the memory behind a registered buffer is still that at its address (what is there is registered),
// and on which processors worker threads may run.
#pragma once

#include <string>
#include <vector>

#include "objects/files/file_kind.h"

namespace stasis {

struct IoUring {
  static constexpr std::string_view name = "io_uring";
  static constexpr pb::fd_types type = pb::IO_URING;
  static constexpr bool made_by_task = true;

  struct RegisteredFile {
    uint32_t id = 0;  // of an open file; 0: an empty slot
    uint64_t tag = 0;
    bool operator==(const RegisteredFile&) const = default;
  };
  struct RegisteredBuffer {
    uint64_t address = 0, bytes = 0, tag = 0;  // 0 bytes: an empty slot
    bool operator==(const RegisteredBuffer&) const = default;
  };
  struct RegisteredRing {
    pid_t tid = 0;
    uint32_t index = 0;
    bool operator==(const RegisteredRing&) const = default;
  };
  // What is registered is known when all files of the tree are.
  struct Registered {
    std::vector<RegisteredFile> files;
    uint32_t file_alloc_start = 0, file_alloc_end = 0;
    std::vector<RegisteredBuffer> buffers;
    uint32_t eventfd = 0;  // id; 0: none
    bool eventfd_async = false;
    std::vector<RegisteredRing> rings;
    bool operator==(const Registered&) const = default;
  };
  struct State {
    uint32_t id = 0;
    uint32_t flags = 0;
    FileOwner owner;
    uint32_t setup_flags = 0;
    uint32_t sq_entries = 0, cq_entries = 0;
    uint32_t sq_head = 0, cq_tail = 0;
    pid_t submitter = 0;
    std::string rings, entries;  // contents
    std::shared_ptr<Registered> registered = std::make_shared<Registered>();
  };
  // Dump: registered files, by their numbers in a task.
  struct Seen {
    uint32_t id = 0;
    std::shared_ptr<Registered> registered;
    pid_t pid = 0;
    std::vector<int> files;  // -1: an empty slot
    int eventfd = -1;        // -1: none
    std::string who;
  };
  struct Shared {
    std::vector<Seen> seen;
  };

  static bool match(const FileView& view);
  static void dump(const FileView& view, DumpFiles& files, Shared& shared, State& state);
  static void conclude(DumpFiles& files, Shared& shared);
  static void encode(const State& state, pb::file_entry& out);
  static void decode(const pb::file_entry& in, State& state);
  static void encode_extension(const State& state, pb::extension_file& out);
  static void decode_extension(const pb::extension_file& in, State& state);
  static void plan(const State& state, RestoreFiles& files, Shared& shared);
  static pid_t maker(const State& state);
  static void make(const State& state, MakingTask& task, RestoreFiles& files);
  static void finish(const State& state, int fd, RestoreFiles& files, Shared& shared);
  static bool maps_at(uint64_t offset);

  // Bytes of the memory that the program maps.
  static size_t ring_bytes(const State& state);
  static size_t entry_bytes(const State& state);
};

// Before the freeze: waits until the rings of a process have no request in flight, as long as that takes, but not
// beyond some tenths of a second. Whatever fails is found again in the dump.
void await_rings(pid_t pid, const KernelMemory& memory) noexcept;

}  // namespace stasis
