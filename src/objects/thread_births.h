// Which thread of a process clones which, so that threads with a descriptor table or an fs struct of their own
// (unshare(2) in a thread) share them as they did. Nearly all threads share those of their leader.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace stasis {

// Numbers of descriptor table and fs struct: equal ones are shared.
struct ThreadTables {
  uint32_t files = 0, fs = 0;
  bool operator==(const ThreadTables&) const = default;
};

struct ThreadBirth {
  size_t thread = 0, cloner = 0;  // indices; the leader is 0
  uint64_t shared = 0;            // CLONE_FILES | CLONE_FS
};

// In an order in which each cloner is there before. Empty if no such order leads there: two threads share one table
// with each other and not the other table, and neither is the leader's.
std::vector<ThreadBirth> plan_thread_births(std::span<const ThreadTables> threads);

}  // namespace stasis
