#include "objects/thread_births.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <map>
#include <random>

namespace stasis {
namespace {

using Threads = std::vector<ThreadTables>;

// Clones threads as the kernel does; true if they share what they are to share.
bool works(const Threads& wanted) {
  const auto births = plan_thread_births(wanted);
  if (births.size() + 1 != wanted.size()) return false;
  std::map<size_t, ThreadTables> made{{0, {1, 1}}};
  uint32_t next = 2;
  for (const ThreadBirth& b : births) {
    if (!made.contains(b.cloner) || made.contains(b.thread)) return false;
    ThreadTables tables = made.at(b.cloner);
    if ((b.shared & CLONE_FILES) == 0) tables.files = next++;
    if ((b.shared & CLONE_FS) == 0) tables.fs = next++;
    made[b.thread] = tables;
  }
  for (const auto& [i, a] : made)
    for (const auto& [j, b] : made)
      if ((a.files == b.files) != (wanted[i].files == wanted[j].files) ||
          (a.fs == b.fs) != (wanted[i].fs == wanted[j].fs))
        return false;
  return true;
}

TEST(ThreadBirths, AllShareWithTheLeader) {
  const Threads threads{{1, 1}, {1, 1}, {1, 1}};
  ASSERT_TRUE(works(threads));
  for (const ThreadBirth& b : plan_thread_births(threads)) {
    EXPECT_EQ(b.cloner, 0u);
    EXPECT_EQ(b.shared, uint64_t{CLONE_FILES | CLONE_FS});
  }
}

TEST(ThreadBirths, OwnTables) {
  EXPECT_TRUE(works({{1, 1}, {2, 1}, {1, 2}, {3, 3}}));
  // Shared by threads with each other, and not with the leader.
  EXPECT_TRUE(works({{1, 1}, {2, 2}, {2, 2}, {2, 2}, {3, 1}, {3, 1}}));
  // One has both of its own, and one of them comes from a thread with a higher number.
  EXPECT_TRUE(works({{1, 1}, {2, 2}, {2, 1}, {2, 2}}));
  EXPECT_TRUE(works({{1, 1}, {2, 2}, {1, 2}}));
  EXPECT_TRUE(works({{5, 9}}));
}

TEST(ThreadBirths, CrosswiseIsRefused) {
  EXPECT_FALSE(works({{1, 1}, {2, 2}, {2, 3}}));
  EXPECT_FALSE(works({{1, 1}, {2, 1}, {1, 2}, {2, 2}}));
  EXPECT_TRUE(plan_thread_births(Threads{{1, 1}, {2, 2}, {2, 3}}).empty());
}

TEST(ThreadBirths, WhatIsPlannedWorks) {
  std::mt19937 random(7);
  size_t planned = 0;
  for (int round = 0; round < 2000; ++round) {
    Threads threads(1 + random() % 6);
    for (ThreadTables& t : threads) t = {static_cast<uint32_t>(random() % 3), static_cast<uint32_t>(random() % 3)};
    if (threads.size() == 1 || !plan_thread_births(threads).empty()) {
      ++planned;
      ASSERT_TRUE(works(threads)) << "round " << round;
    }
  }
  EXPECT_GT(planned, 500u);
}

}  // namespace
}  // namespace stasis
