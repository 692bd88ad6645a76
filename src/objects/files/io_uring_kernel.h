// What the kernel knows of a ring of io_uring(7) and tells nobody: how it was set up, how many requests are in flight,
// what is registered. Read from its own memory; the members of its structures are found by their names.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "kernel/kernel_memory.h"

namespace stasis {

struct KernelRing {
  uint32_t setup_flags = 0;
  uint32_t sq_entries = 0, cq_entries = 0;
  uint64_t array_offset = 0;  // in the ring, of the order of entries; 0: there is none
  // The kernel's own copies of what it shows in the ring.
  uint32_t sq_head = 0, cq_tail = 0;
  uint32_t requests = 0;    // in flight
  bool overflowed = false;  // completions wait for room
  bool skipped = false;     // some request was one without a completion (IOSQE_CQE_SKIP_SUCCESS)
  bool compat = false;      // made by a 32-bit program
  std::string unsupported;  // what cannot be made again, if there is something: "has ..."
  pid_t submitter = 0;      // IORING_SETUP_SINGLE_ISSUER

  struct RegisteredFile {
    uint64_t file = 0;  // address; 0: an empty slot
    uint64_t tag = 0;
  };
  std::vector<RegisteredFile> files;
  uint32_t file_alloc_start = 0, file_alloc_end = 0;
  struct RegisteredBuffer {
    uint64_t address = 0, bytes = 0;  // 0 bytes: an empty slot
    uint64_t tag = 0;
  };
  std::vector<RegisteredBuffer> buffers;
  uint64_t eventfd = 0;  // address of its context
  bool eventfd_async = false;

  // Threads that have used it and live.
  struct User {
    uint64_t task = 0;
    pid_t tid = 0, pid = 0;
    std::vector<uint32_t> registered;  // where it has registered the descriptor of the ring
  };
  std::vector<User> users;
};

// Null where the kernel does not permit it.
std::shared_ptr<KernelMemory> open_ring_memory();

// `fd`: a descriptor of the calling thread. Nothing if the structures are not those that this program knows.
std::optional<KernelRing> read_ring(const KernelMemory& memory, int fd);

// Of the descriptors of a thread: addresses of what is behind each number, 0 where there is none.
struct OpenFile {
  int number = -1;
  uint64_t file = 0;
};
std::vector<OpenFile> open_files_of(const KernelMemory& memory, uint64_t task);
// The context behind an eventfd; something else behind other files.
uint64_t private_data_of(const KernelMemory& memory, uint64_t file);

}  // namespace stasis
