#include "base/error.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <set>

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
