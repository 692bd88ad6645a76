// Objects that are kept in our own image: through it and back, what the default adds, what a decoder must refuse.
#include <gtest/gtest.h>

#include "base/error.h"
#include "objects/task/cpu_affinity.h"
#include "objects/task/round_trip.h"

namespace stasis {
namespace {

TEST(CpuAffinity, GoesThroughAnImage) {
  const CpuSet cpus = parse_cpu_list("1,70");
  const auto back = extension_round_trip<CpuAffinity>({.told = true, .cpus = cpus});
  EXPECT_TRUE(back.told);
  EXPECT_EQ(back.cpus, cpus);
}

TEST(CpuAffinity, AllProcessorsAreTheDefault) {
  EXPECT_FALSE(encoded_extension<CpuAffinity>({.told = true}).has_thread());
  const auto back = decoded_extension<CpuAffinity>({});
  EXPECT_TRUE(back.told);
  EXPECT_TRUE(back.cpus.empty());
}

TEST(CpuAffinity, RefusesNonsense) {
  pb::extension_task task;
  task.mutable_thread()->add_cpu_affinity(0);
  EXPECT_REASON(Reason::IMAGE_CORRUPT, decoded_extension<CpuAffinity>(task));
  for (size_t i = 0; i <= CpuSet::kMostWords; ++i) task.mutable_thread()->add_cpu_affinity(1);
  EXPECT_REASON(Reason::IMAGE_CORRUPT, decoded_extension<CpuAffinity>(task));
}

}  // namespace
}  // namespace stasis
