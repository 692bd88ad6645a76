#include "objects/files/held_locks.h"

#include <sys/file.h>

#include "objects/files/test_support.h"

namespace stasis {
namespace {

class HeldLocksTest : public testing::Test {
 protected:
  void refuse(HeldLocks& locks, const Fd& fd) {
    struct stat st;
    ASSERT_EQ(::fstat(fd.get(), &st), 0);
    locks.refuse(fd.get(), st, ::getpid(), fd.get(), "pid 42 (test)");
  }
  test::Directory dir_;
  Fd fd_{::open(dir_.put("file", "x").c_str(), O_RDWR | O_CLOEXEC)};
};

TEST_F(HeldLocksTest, NoneIsFine) {
  HeldLocks now;
  EXPECT_NO_THROW(refuse(now, fd_));
}

TEST_F(HeldLocksTest, EveryKindIsFound) {
  ASSERT_EQ(::flock(fd_.get(), LOCK_SH), 0);
  HeldLocks flocked;
  const Error error = error_of([&] { refuse(flocked, fd_); });
  EXPECT_EQ(error.reason(), Reason::FILE_LOCKS_HELD);
  EXPECT_NE(error.what_failed().find("FLOCK"), std::string::npos);
  ASSERT_EQ(::flock(fd_.get(), LOCK_UN), 0);

  struct flock range {};
  range.l_type = F_WRLCK;
  ASSERT_EQ(::fcntl(fd_.get(), F_SETLK, &range), 0);
  HeldLocks posix;
  EXPECT_EQ(error_of([&] { refuse(posix, fd_); }).reason(), Reason::FILE_LOCKS_HELD);
}

TEST_F(HeldLocksTest, LocksOfOthersAreNoHindrance) {
  const Fd other(::open((dir_.path() + "/file").c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_EQ(::flock(other.get(), LOCK_EX), 0);
  HeldLocks now;
  EXPECT_NO_THROW(refuse(now, fd_));
  EXPECT_EQ(error_of([&] { refuse(now, other); }).reason(), Reason::FILE_LOCKS_HELD);
}

TEST_F(HeldLocksTest, ForManyFilesAllAreReadAtOnce) {
  HeldLocks none;
  none.expect(100000);
  EXPECT_NO_THROW(refuse(none, fd_));
  ASSERT_EQ(::flock(fd_.get(), LOCK_SH), 0);
  HeldLocks locks;
  locks.expect(100000);
  EXPECT_EQ(error_of([&] { refuse(locks, fd_); }).reason(), Reason::FILE_LOCKS_HELD);
}

TEST_F(HeldLocksTest, AnIncompleteListProvesNothing) {
  ASSERT_EQ(::flock(fd_.get(), LOCK_SH), 0);
  HeldLocks incomplete("", false);
  EXPECT_EQ(error_of([&] { refuse(incomplete, fd_); }).reason(), Reason::FILE_LOCKS_HELD);
  HeldLocks complete("", true);
  EXPECT_NO_THROW(refuse(complete, fd_));
}

}  // namespace
}  // namespace stasis
