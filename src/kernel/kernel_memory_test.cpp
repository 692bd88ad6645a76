#include "kernel/kernel_memory.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>

namespace stasis {
namespace {

class KernelMemoryTest : public testing::Test {
 protected:
  void SetUp() override {
    memory_ = KernelMemory::open({"task_struct", "list_head"});
    if (!memory_) GTEST_SKIP() << "BPF programs and type information of the kernel";
  }
  std::unique_ptr<KernelMemory> memory_;
};

TEST_F(KernelMemoryTest, ReadsTheStructureOfThisThread) {
  const uint64_t task = memory_->own_task();
  const auto pid = memory_->types().offset("task_struct", "tgid"),
             comm = memory_->types().offset("task_struct", "comm");
  ASSERT_TRUE(task != 0 && pid && comm);
  std::vector<char> bytes(*memory_->types().size("task_struct"));
  ASSERT_TRUE(memory_->read(task, bytes.data(), bytes.size()));  // in several runs
  char name[16];
  ASSERT_TRUE(memory_->read(task + *comm, name));
  EXPECT_EQ(std::strncmp(name, bytes.data() + *comm, sizeof name), 0);
  EXPECT_STREQ(name, "kernel_test");
}

TEST_F(KernelMemoryTest, FollowsPathsOfMembers) {
  const KernelTypes& types = memory_->types();
  EXPECT_EQ(types.offset("task_struct", "tasks.prev").value_or(0),
            types.offset("task_struct", "tasks").value_or(0) + 8);
  EXPECT_FALSE(types.offset("task_struct", "tasks.no_such_member"));
  EXPECT_FALSE(types.offset("no_such_structure", "tasks"));
}

TEST_F(KernelMemoryTest, CountsAList) {
  // All processes: a list that comes back to its head, so the bound ends the walk.
  const uint64_t first = memory_->own_task() + memory_->types().offset("task_struct", "tasks").value_or(0);
  EXPECT_EQ(memory_->list_length(first, 100), -1);
  EXPECT_EQ(memory_->list_length(0, 100), 0);
}

TEST_F(KernelMemoryTest, RefusesAnAddressThatLeadsNowhere) {
  uint64_t word = 0;
  EXPECT_FALSE(memory_->read(8, word));
  EXPECT_EQ(memory_->list_length(8, 100), -1);
}

}  // namespace
}  // namespace stasis
