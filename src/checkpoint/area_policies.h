// Asks a process for the NUMA policies of its mappings, which no file of /proc tells without walking all page tables.
//
// One cheap call for each mapping. With one memory node a policy has no effect: then processes with very many mappings
// are not asked, nor is any without NUMA in the kernel.
#pragma once

#include <span>
#include <vector>

#include "memory/vma.h"
#include "memory/vma_extension.h"
#include "tracee/batch.h"

namespace stasis {

class AreaPolicies {
 public:
  // Once for a run, before any task stops.
  static void prepare();
  // What the first questions take in a batch at most.
  static size_t first_bytes(std::span<const Vma> areas);

  // Adds questions; false if there are none left. The answers are to be taken before the next ones.
  bool ask(std::span<const Vma> areas, SyscallBatch& batch);
  void answer(std::span<const Vma> areas, const SyscallBatch& batch);

  const std::vector<AreaPolicy>& found() const { return found_; }

 private:
  struct Question {
    SyscallBatch::Call call;
    size_t index;  // of the areas, or of found_
    BatchData mode, nodes;
  };
  size_t next_area_ = 0;
  size_t next_found_ = 0;  // whose nodes are not known
  bool asked_nodes_ = false;
  std::vector<Question> questions_;
  std::vector<AreaPolicy> found_;
};

}  // namespace stasis
