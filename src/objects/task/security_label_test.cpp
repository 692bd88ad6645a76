#include "objects/task/security_label.h"

#include <gtest/gtest.h>

#include "base/test_error.h"
#include "objects/task/round_trip.h"

namespace stasis {
namespace {

TEST(SecurityLabel, AProfileIsALabelWithoutItsMode) {
  EXPECT_EQ(apparmor_profile("unconfined"), "");
  EXPECT_EQ(apparmor_profile("/usr/bin/man (enforce)"), "/usr/bin/man");
  EXPECT_EQ(apparmor_profile("a profile (of mine) (complain)"), "a profile (of mine)");
  EXPECT_EQ(apparmor_profile("one//&two (mixed)"), "one//&two");
  EXPECT_EQ(apparmor_profile(":space://inside (kill)"), ":space://inside");
}

TEST(SecurityLabel, GoesThroughAnImage) {
  EXPECT_EQ(round_trip<SecurityLabel>({.profile = "one//&two"}).profile, "one//&two");
  EXPECT_FALSE(encoded<SecurityLabel>({}).thread_core().creds().has_lsm_profile());
}

TEST(SecurityLabel, RefusesNonsense) {
  const auto reason_of_profile = [](const std::string& profile) {
    pb::core_entry core = core_for_tests();
    core.mutable_thread_core()->mutable_creds()->set_lsm_profile(profile);
    return error_of([&] { decoded<SecurityLabel>(core); }).reason();
  };
  EXPECT_EQ(reason_of_profile("two\nlines"), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(reason_of_profile(std::string(100'000, 'x')), Reason::IMAGE_CORRUPT);
}

TEST(SecurityLabel, ADroppedModuleIsTold) {
  if (security_module() != pb::NO_LSM) GTEST_SKIP() << "this machine has a security module";
  const RestoreOptions options;
  const SettleView view{.options = options, .pid = 1, .tid = 1, .inner_pid = 1, .inner_tid = 1, .who = "pid 1 (x)"};
  SyscallBatch batch;
  EXPECT_EQ(error_of([&] { SecurityLabel::settle({.profile = "one"}, view, batch); }).reason(),
            Reason::FEATURE_MISSING);
  SecurityLabel::settle({}, view, batch);
  EXPECT_TRUE(batch.empty());
}

}  // namespace
}  // namespace stasis
