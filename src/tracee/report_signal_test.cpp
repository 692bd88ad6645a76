#include <gtest/gtest.h>
#include <signal.h>

#include "tracee/tracee.h"

namespace stasis {
namespace {

uint64_t set_of(std::initializer_list<int> signals) {
  uint64_t set = 0;
  for (int s : signals) set |= uint64_t{1} << (s - 1);
  return set;
}

struct Case {
  const char* name;
  SignalUse use;
  int expected;
};

class ReportSignalTable : public ::testing::TestWithParam<Case> {};

TEST_P(ReportSignalTable, IsChosen) {
  EXPECT_EQ(choose_report_signal(GetParam().use).number, GetParam().expected);
}

const SignalUse kHandlesAllDefaultIgnored{.caught = set_of({SIGURG, SIGWINCH, SIGCHLD})};

INSTANTIATE_TEST_SUITE_P(
    Table, ReportSignalTable,
    ::testing::Values(
        Case{"plain", {}, SIGURG}, Case{"urg_ignored", {.ignored = set_of({SIGURG})}, SIGURG},
        Case{"urg_caught", {.caught = set_of({SIGURG})}, SIGWINCH},
        Case{"urg_blocked", {.blocked = set_of({SIGURG})}, SIGWINCH},
        Case{"urg_pending", {.pending = set_of({SIGURG})}, SIGWINCH},
        Case{"urg_and_winch_taken", {.caught = set_of({SIGURG}), .blocked = set_of({SIGWINCH})}, SIGCHLD},
        Case{"never_continue", kHandlesAllDefaultIgnored, 0},
        Case{"an_ignored_one", {.ignored = set_of({SIGPIPE}), .caught = kHandlesAllDefaultIgnored.caught}, SIGPIPE},
        Case{"ignored_and_blocked",
             {.ignored = set_of({SIGPIPE, SIGHUP}),
              .caught = kHandlesAllDefaultIgnored.caught,
              .blocked = set_of({SIGHUP})},
             SIGPIPE},
        Case{"ignored_trap_is_no_use", {.ignored = set_of({SIGTRAP}), .caught = kHandlesAllDefaultIgnored.caught}, 0},
        Case{"ignored_continue_is_no_use",
             {.ignored = set_of({SIGCONT}), .caught = kHandlesAllDefaultIgnored.caught},
             0},
        Case{"everything_blocked", {.ignored = set_of({SIGPIPE}), .blocked = ~uint64_t{0}}, 0}),
    [](const auto& row) { return row.param.name; });

TEST(ReportSignal, NoneMeansStepping) {
  EXPECT_TRUE(choose_report_signal(kHandlesAllDefaultIgnored).stepping());
  EXPECT_FALSE(choose_report_signal({}).stepping());
}

}  // namespace
}  // namespace stasis
