#include "objects/task/rseq.h"

#include <gtest/gtest.h>

#include "objects/task/round_trip.h"

namespace stasis {
namespace {

TEST(Rseq, GoesThroughAnImage) {
  const auto back = round_trip<Rseq>({.area = 0x7000, .size = 32, .signature = 0x53053053, .section = 0x404040});
  EXPECT_EQ(back.area, 0x7000u);
  EXPECT_EQ(back.size, 32u);
  EXPECT_EQ(back.signature, 0x53053053u);
  EXPECT_EQ(back.section, 0x404040u);
  EXPECT_FALSE(encoded<Rseq>({}).thread_core().has_rseq_entry());
  EXPECT_EQ(decoded<Rseq>(core_for_tests()).area, 0u);
}

TEST(Rseq, SectionEndsBeforeItsCommit) {
  const RseqSection section{.start_ip = 0x1000, .post_commit_offset = 0x10, .abort_ip = 0x2000};
  EXPECT_FALSE(section.contains(0xfff));
  EXPECT_TRUE(section.contains(0x1000));
  EXPECT_TRUE(section.contains(0x100f));
  EXPECT_FALSE(section.contains(0x1010));
}

}  // namespace
}  // namespace stasis
