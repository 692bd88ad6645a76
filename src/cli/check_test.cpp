#include "cli/check.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <optional>

#include "base/error.h"
#include "base/log.h"

namespace stasis::cli {
namespace {

FeatureResult there() {
  return {.supported = true, .why = ""};
}
FeatureResult lacking() {
  return {.supported = false, .why = "the call is unknown"};
}
FeatureResult never() {
  ADD_FAILURE() << "probed";
  return {};
}

class CheckTest : public testing::Test {
 protected:
  void SetUp() override { log::reset(); }
  void TearDown() override { log::reset(); }

  // Standard output, and the status.
  std::pair<std::string, int> check(const CheckOptions& options, std::span<const Feature> features) {
    testing::internal::CaptureStdout();
    int status = -1;
    try {
      status = check_features(options, features);
    } catch (const Error& e) {
      error_ = e;
      status = 1;
    }
    std::fflush(stdout);
    return {testing::internal::GetCapturedStdout(), status};
  }
  std::optional<Error> error_;
};

constexpr Feature kGood[] = {{"a", FeatureCategory::needed, "All of it.", there},
                             {"b", FeatureCategory::common, "Some.", there},
                             {"c", FeatureCategory::experimental, "Few.", there}};
constexpr Feature kCommonLacks[] = {{"a", FeatureCategory::needed, "All of it.", there},
                                    {"b", FeatureCategory::common, "Some.", lacking},
                                    {"c", FeatureCategory::experimental, "Few.", lacking}};
constexpr Feature kNeededLacks[] = {{"a", FeatureCategory::needed, "All of it.", lacking},
                                    {"b", FeatureCategory::needed, "All of it.", never}};
using Verdict = std::pair<std::string, int>;

TEST_F(CheckTest, AllFine) {
  EXPECT_EQ(check({}, kGood), Verdict("Looks good.\n", 0));
  EXPECT_EQ(check({.extra = true, .experimental = true}, kGood), Verdict("Looks good.\n", 0));
}

TEST_F(CheckTest, OnlyWhatWasAskedForCounts) {
  EXPECT_EQ(check({}, kCommonLacks), Verdict("Looks good.\n", 0));
  const Verdict extra = check({.extra = true}, kCommonLacks);
  EXPECT_EQ(extra.second, 1);
  EXPECT_TRUE(extra.first.starts_with("Looks good but this kernel lacks: b.\n")) << extra.first;
  EXPECT_EQ(std::ranges::count(extra.first, '\n'), 3);
  const Verdict both = check({.extra = true, .experimental = true}, kCommonLacks);
  EXPECT_TRUE(both.first.starts_with("Looks good but this kernel lacks: b, c.\n")) << both.first;
  EXPECT_FALSE(error_);
}

TEST_F(CheckTest, StopsAtTheFirstThatIsNeeded) {
  EXPECT_EQ(check({}, kNeededLacks), Verdict("", 1));
  ASSERT_TRUE(error_);
  EXPECT_EQ(error_->reason(), Reason::FEATURE_MISSING);
  EXPECT_EQ(error_->object(), "a");
  EXPECT_EQ(error_->what_failed(), "the call is unknown");
}

TEST_F(CheckTest, OneFeature) {
  EXPECT_EQ(check({.feature = "c"}, kGood), Verdict("c is supported\n", 0));
  EXPECT_EQ(check({.feature = "c"}, kCommonLacks), Verdict("", 1));
  EXPECT_EQ(error_->reason(), Reason::FEATURE_MISSING);
  for (const char* unknown : {"list", "d", "C"}) {
    EXPECT_EQ(check({.feature = unknown}, kGood), Verdict("", 1)) << unknown;
    EXPECT_EQ(error_->reason(), Reason::BAD_OPTION) << unknown;
  }
}

}  // namespace
}  // namespace stasis::cli
