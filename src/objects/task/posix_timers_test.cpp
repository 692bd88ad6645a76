#include "objects/task/posix_timers.h"

#include <gtest/gtest.h>
#include <signal.h>

#include "base/error.h"
#include "objects/task/round_trip.h"

namespace stasis {
namespace {

TEST(PosixTimers, GoThroughAnImageByAscendingId) {
  const PosixTimers::Timer late{.id = 9,
                                .clock_id = -6,
                                .signal = 40,
                                .notify = SIGEV_THREAD_ID,
                                .value = 0xdeadbeefcafe,
                                .thread = 4711,
                                .overrun = 3,
                                .times = {.interval_s = 1, .interval_ns = 2, .value_s = 3, .value_ns = 999'999'999}};
  const auto back = round_trip<PosixTimers>({.timers = {late, {.id = 2, .notify = SIGEV_NONE}}});
  ASSERT_EQ(back.timers.size(), 2u);
  EXPECT_EQ(back.timers[0].id, 2);
  const PosixTimers::Timer& timer = back.timers[1];
  EXPECT_EQ(timer.id, 9);
  EXPECT_EQ(timer.clock_id, -6);
  EXPECT_EQ(timer.signal, 40);
  EXPECT_EQ(timer.notify, SIGEV_THREAD_ID);
  EXPECT_EQ(timer.value, 0xdeadbeefcafeu);
  EXPECT_EQ(timer.thread, 4711);
  EXPECT_EQ(timer.overrun, 3u);
  EXPECT_EQ(timer.times.value_ns, 999'999'999u);
}

TEST(PosixTimers, RefuseNonsense) {
  EXPECT_REASON(Reason::IMAGE_CORRUPT, round_trip<PosixTimers>({.timers = {{.id = 1}, {.id = 1}}}));
  EXPECT_REASON(Reason::IMAGE_CORRUPT, round_trip<PosixTimers>({.timers = {{.times = {.value_ns = 1'000'000'000}}}}));
}

TEST(PosixTimers, CountUpToTheirIdsOnOlderKernels) {
  SyscallBatch with_ids, counting;
  const PosixTimers::State state{.timers = {{.id = 0}, {.id = 3}}};
  create_posix_timers(state, true, with_ids);
  EXPECT_EQ(with_ids.calls(), 4u);  // on, two timers, off
  create_posix_timers(state, false, counting);
  EXPECT_EQ(counting.calls(), 6u);  // two timers, and two that are deleted again
  EXPECT_REASON(Reason::FEATURE_MISSING, create_posix_timers({.timers = {{.id = 1 << 20}}}, false, counting));
}

}  // namespace
}  // namespace stasis
