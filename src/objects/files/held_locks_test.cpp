#include "objects/files/held_locks.h"

#include <sys/file.h>

#include "objects/files/test_support.h"

namespace stasis {
namespace {

class HeldLocksTest : public testing::Test {
 protected:
  std::vector<FileLock> held(HeldLocks& locks, const Fd& fd) {
    struct stat st;
    EXPECT_EQ(::fstat(fd.get(), &st), 0);
    return locks.held(fd.get(), st, ::getpid(), fd.get());
  }
  test::Directory dir_;
  Fd fd_{::open(dir_.put("file", "x").c_str(), O_RDWR | O_CLOEXEC)};
};

TEST_F(HeldLocksTest, NoneIsFine) {
  HeldLocks now;
  EXPECT_TRUE(held(now, fd_).empty());
}

TEST_F(HeldLocksTest, EveryKindIsFound) {
  HeldLocks now;
  ASSERT_EQ(::flock(fd_.get(), LOCK_SH), 0);
  struct flock range {};
  range.l_type = F_WRLCK;
  range.l_len = 10;
  ASSERT_EQ(::fcntl(fd_.get(), F_SETLK, &range), 0);
  const std::vector<FileLock> locks = held(now, fd_);
  ASSERT_EQ(locks.size(), 2u);
  EXPECT_EQ(locks[0].kind, FileLock::Kind::flock);
  EXPECT_EQ(locks[1].kind, FileLock::Kind::posix);
  EXPECT_EQ(locks[1].end, 9u);
}

TEST_F(HeldLocksTest, LocksOfOthersAreNotOfIt) {
  const Fd other(::open((dir_.path() + "/file").c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_EQ(::flock(other.get(), LOCK_EX), 0);
  HeldLocks now;
  EXPECT_TRUE(held(now, fd_).empty());
  EXPECT_EQ(held(now, other).size(), 1u);
}

TEST_F(HeldLocksTest, ForManyFilesAllAreReadAtOnce) {
  HeldLocks none;
  none.expect(100000);
  EXPECT_TRUE(held(none, fd_).empty());
  ASSERT_EQ(::flock(fd_.get(), LOCK_SH), 0);
  HeldLocks locks;
  locks.expect(100000);
  EXPECT_EQ(held(locks, fd_).size(), 1u);
}

TEST_F(HeldLocksTest, AnIncompleteListProvesNothing) {
  ASSERT_EQ(::flock(fd_.get(), LOCK_SH), 0);
  HeldLocks incomplete("", false);
  EXPECT_EQ(held(incomplete, fd_).size(), 1u);
  HeldLocks complete("", true);
  EXPECT_TRUE(held(complete, fd_).empty());
}

}  // namespace
}  // namespace stasis
