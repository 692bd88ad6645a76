#include "kernel/cpu_set.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "base/test_error.h"

namespace stasis {
namespace {

TEST(CpuSet, ListsAreRead) {
  CpuSet wanted;
  for (uint32_t cpu : {0u, 1u, 2u, 8u, 64u, 65u}) wanted.add(cpu);
  EXPECT_EQ(parse_cpu_list("0-2,8,64-65\n"), wanted);
  EXPECT_EQ(wanted.words().size(), 2u);
  EXPECT_TRUE(parse_cpu_list("\n").empty());
}

TEST(CpuSet, ListsThatAreNoneAreRefused) {
  for (const char* text : {"3-1", "x", "1;2", "0-8192", "1,,2"})
    EXPECT_EQ(error_of([&] { parse_cpu_list(text); }).reason(), Reason::PROC_TEXT) << text;
}

TEST(CpuSet, KnowsWhatItContains) {
  const CpuSet small = parse_cpu_list("1"), large = parse_cpu_list("0-70");
  EXPECT_TRUE(large.contains(small));
  EXPECT_FALSE(small.contains(large));
  EXPECT_FALSE(small.contains(parse_cpu_list("2")));
  EXPECT_TRUE(CpuSet::all().contains(large));
  EXPECT_TRUE(small.contains(CpuSet()));
  const uint64_t words[] = {2, 0, 0};
  EXPECT_EQ(CpuSet(words), small);
}

TEST(CpuSet, OwnAffinityIsPartOfWhatIsOnline) {
  CpuSet own;
  ASSERT_EQ(get_affinity(0, own), 0);
  EXPECT_FALSE(own.empty());
  EXPECT_TRUE(online_cpus().contains(own));
  EXPECT_EQ(set_affinity(0, own), 0);
  EXPECT_EQ(set_affinity(0, CpuSet()), -EINVAL);
}

}  // namespace
}  // namespace stasis
