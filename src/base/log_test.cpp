#include "base/log.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <regex>

namespace stasis {
namespace {

class LogTest : public testing::Test {
 protected:
  void SetUp() override {
    log::reset();
    file_ = memfd_create("log", 0);
    log::set_target(Fd(dup(file_)));
  }
  void TearDown() override {
    log::reset();
    close(file_);
  }
  std::string contents() {
    log::flush();
    std::string s(65536, 0);
    s.resize(static_cast<size_t>(pread(file_, s.data(), s.size(), 0)));
    return s;
  }
  int file_ = -1;
};

TEST_F(LogTest, LinesHaveTheFieldsShape) {
  log::set_level(4);
  log_info("hello {}", 1);
  log_warning("careful");
  EXPECT_TRUE(std::regex_match(
      contents(),
      std::regex("\\(\\d\\d\\.\\d{6}\\) hello 1\n\\(\\d\\d\\.\\d{6}\\) Warn  \\(log_test.cpp:\\d+\\): careful\n")))
      << contents();
}

TEST_F(LogTest, BelowTheLevelNothingIsFormatted) {
  log::set_level(2);
  int formatted = 0;
  auto touch = [&] { return ++formatted; };
  log_debug("{}", touch());
  log_info("{}", touch());
  EXPECT_EQ(formatted, 0);
  EXPECT_EQ(contents(), "");
}

TEST_F(LogTest, NoTimeStampBelowLevelThree) {
  log::set_level(2);
  log_message("plain");
  EXPECT_EQ(contents(), "plain\n");
}

}  // namespace
}  // namespace stasis
