#include "kernel/number_set.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "base/test_error.h"

namespace stasis {
namespace {

TEST(NumberSet, ListsAreRead) {
  NumberSet wanted;
  for (uint32_t cpu : {0u, 1u, 2u, 8u, 64u, 65u}) wanted.add(cpu);
  EXPECT_EQ(parse_number_list("0-2,8,64-65\n"), wanted);
  EXPECT_EQ(wanted.words().size(), 2u);
  EXPECT_TRUE(parse_number_list("\n").empty());
}

TEST(NumberSet, ListsThatAreNoneAreRefused) {
  for (const char* text : {"3-1", "x", "1;2", "0-8192", "1,,2"})
    EXPECT_EQ(error_of([&] { parse_number_list(text); }).reason(), Reason::PROC_TEXT) << text;
}

TEST(NumberSet, KnowsWhatItContains) {
  const NumberSet small = parse_number_list("1"), large = parse_number_list("0-70");
  EXPECT_TRUE(large.contains(small));
  EXPECT_FALSE(small.contains(large));
  EXPECT_FALSE(small.contains(parse_number_list("2")));
  EXPECT_TRUE(NumberSet::all().contains(large));
  EXPECT_TRUE(small.contains(NumberSet()));
  EXPECT_EQ(parse_number_list("0-3,70").common(parse_number_list("2-9")), parse_number_list("2-3"));
  EXPECT_TRUE(small.common(parse_number_list("70")).empty());
  const uint64_t words[] = {2, 0, 0};
  EXPECT_EQ(NumberSet(words), small);
}

TEST(NumberSet, OwnAffinityIsPartOfWhatIsOnline) {
  NumberSet own;
  ASSERT_EQ(get_affinity(0, own), 0);
  EXPECT_FALSE(own.empty());
  EXPECT_TRUE(online_cpus().contains(own));
  EXPECT_EQ(set_affinity(0, own), 0);
  EXPECT_EQ(set_affinity(0, NumberSet()), -EINVAL);
}

TEST(NumberSet, SomeNodeHasMemory) {
  EXPECT_FALSE(nodes_with_memory().empty());
  if (const auto limit = memory_node_limit()) {
    EXPECT_EQ(*limit % 64, 0u);
  }
}

}  // namespace
}  // namespace stasis
