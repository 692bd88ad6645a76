#include "base/error.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <set>

#include "base/test_error.h"

namespace stasis {
namespace {

TEST(Error, TellsCauseFromTheOutsideIn) {
  try {
    try {
      throw Error(Reason::IMAGE_WRITE, "cannot write")
          .object("pages-1.img")
          .error_number(ENOSPC)
          .remedy("free some space");
    } catch (Error& e) {
      e.while_doing("saving memory of pid 42");
      e.while_doing("dump");
      throw;
    }
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(),
                 "dump: saving memory of pid 42: pages-1.img: cannot write: No space left on device (ENOSPC)");
    EXPECT_EQ(
        e.report(),
        "dump: saving memory of pid 42: pages-1.img: cannot write: No space left on device (ENOSPC) [IMAGE_WRITE]\n"
        "What to do: free some space");
  }
}

TEST(Error, RemembersWhereItWasMade) {
  const int line = __LINE__ + 1;
  const Error here(Reason::SYSTEM, "x");
  EXPECT_EQ(here.place().file(), "error_test.cpp");
  EXPECT_EQ(here.place().line, line);
  // Through helpers: the place of their caller.
  const int checked = __LINE__ + 1;
  const Error failed = error_of([] { check(-1, "x"); });
  EXPECT_EQ(failed.place().file(), "error_test.cpp");
  EXPECT_EQ(failed.place().line, checked);
}

TEST(Error, DefaultsDoNotOverrideWhatIsCloserToTheCause) {
  Error e = Error(Reason::SYSTEM, "x").object("inner").remedy("inner remedy");
  e.default_object("outer");
  e.default_remedy("outer remedy");
  EXPECT_EQ(e.object(), "inner");
  EXPECT_EQ(e.remedy(), "inner remedy");
}

TEST(Error, AReportAlwaysHasARemedy) {
  EXPECT_EQ(Error(Reason::PIDFILE, "x").report(), "x [PIDFILE]\nWhat to do: name another file with --pidfile");
}

TEST(Error, AReportSaysWhatIsLeft) {
  Error e(Reason::PIDFILE, "x");
  e.leaves("nothing");
  EXPECT_EQ(e.report(), "x [PIDFILE]\nWhat to do: name another file with --pidfile\nWhat is left: nothing");
}

TEST(Error, CodesAreUniqueAndHaveText) {
  std::set<std::string_view> seen;
  for (Reason r : all_reasons()) {
    EXPECT_TRUE(seen.insert(reason_code(r)).second) << reason_code(r);
    EXPECT_FALSE(reason_text(r).empty());
    EXPECT_FALSE(reason_remedy(r).empty());
  }
}

TEST(Error, CheckPassesResultsAndThrowsErrno) {
  EXPECT_EQ(check(7, "x"), 7);
  errno = EPERM;
  try {
    check(-1, "cannot do it", Reason::NO_PRIVILEGE);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.error_number(), EPERM);
    EXPECT_EQ(e.reason(), Reason::NO_PRIVILEGE);
  }
}

}  // namespace
}  // namespace stasis
