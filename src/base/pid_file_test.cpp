#include "base/pid_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>

#include "base/error.h"
#include "base/fd.h"

namespace stasis {
namespace {

class PidFileTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/pid_file_test.XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    directory_ = name;
    fd_ = Fd(::open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  std::string directory_;
  Fd fd_;
};

TEST_F(PidFileTest, HoldsTheDigitsAlone) {
  write_pid_file(fd_.get(), "a.pid", 4711);
  char text[16] = {};
  const Fd file(::open((directory_ + "/a.pid").c_str(), O_RDONLY | O_CLOEXEC));
  EXPECT_EQ(::read(file.get(), text, sizeof text), 4);
  EXPECT_STREQ(text, "4711");
  struct stat st {};
  ASSERT_EQ(::fstat(file.get(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777u, 0600u);
}

TEST_F(PidFileTest, NeverOverwrites) {
  write_pid_file(fd_.get(), "a.pid", 1);
  try {
    write_pid_file(fd_.get(), "a.pid", 2);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.reason(), Reason::PIDFILE);
    EXPECT_EQ(e.error_number(), EEXIST);
    EXPECT_EQ(e.object(), "a.pid");
  }
  EXPECT_EQ(std::filesystem::file_size(directory_ + "/a.pid"), 1u);
}

TEST_F(PidFileTest, NamesTheMissingDirectory) {
  try {
    write_pid_file(fd_.get(), "no/such/dir.pid", 2);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.reason(), Reason::PIDFILE);
    EXPECT_EQ(e.error_number(), ENOENT);
  }
}

}  // namespace
}  // namespace stasis
