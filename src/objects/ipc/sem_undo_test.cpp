#include "objects/ipc/sem_undo.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "objects/task/round_trip.h"

namespace stasis {
namespace {

using State = SemUndo::State;

TEST(SemUndo, GoesThroughAnImage) {
  const State state{.own_list = true, .adjustments = {{7, 0x5a, 3, -12}, {8, 0, 0, 32767}}};
  const State back = extension_round_trip<SemUndo>(state);
  EXPECT_TRUE(back.own_list);
  EXPECT_EQ(back.adjustments, state.adjustments);
  EXPECT_FALSE(encoded_extension<SemUndo>({.own_list = true}).has_thread());
  EXPECT_TRUE(decoded_extension<SemUndo>({}).adjustments.empty());
}

TEST(SemUndo, RefusesNonsense) {
  EXPECT_REASON(Reason::IMAGE_CORRUPT, extension_round_trip<SemUndo>({.adjustments = {{7, 0, 0, 0}}}));
  EXPECT_REASON(Reason::IMAGE_CORRUPT, extension_round_trip<SemUndo>({.adjustments = {{7, 0, 0, 40000}}}));
  EXPECT_REASON(Reason::IMAGE_CORRUPT, extension_round_trip<SemUndo>({.adjustments = {{7, 0, 70000, 1}}}));
  EXPECT_REASON(Reason::IMAGE_CORRUPT, extension_round_trip<SemUndo>({.adjustments = {{1u << 31, 0, 0, 1}}}));
}

TEST(SemUndo, SearchFindsEveryValue) {
  for (const int sign : {1, -1})
    for (const int32_t value : {0, 1, 2, 3, 1000, 32766, 32767}) {
      SemUndo::Search s{.sign = sign, .disproved = sign > 0 ? 32768 : 32769};
      int rounds = 0;
      for (; !s.is_done() && rounds < 40; ++rounds) {
        const int32_t tried = s.next();
        ASSERT_TRUE(tried > s.proved && tried < s.disproved);
        (value >= tried ? s.proved : s.disproved) = tried;
      }
      EXPECT_EQ(s.proved, value);
      EXPECT_LE(rounds, 31);
      if (value <= 1) {
        EXPECT_LE(rounds, 2);
      }
    }
}

}  // namespace
}  // namespace stasis
