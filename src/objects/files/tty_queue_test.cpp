#include "objects/files/tty_queue.h"

#include <asm/termbits.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <numeric>

#include "base/fd.h"
#include "base/test_error.h"

namespace stasis {
namespace {

struct Pair {
  Fd master, slave;

  Pair() {
    master = Fd(::open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK));
    const int unlocked = 0;
    if (master && ::ioctl(master.get(), TIOCSPTLCK, &unlocked) == 0)
      slave = Fd(::ioctl(master.get(), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK));
  }
  struct termios2 settings() const {
    struct termios2 out {};
    EXPECT_EQ(::ioctl(slave.get(), TCGETS2, &out), 0);
    return out;
  }
  void set(const struct termios2& settings) const { EXPECT_EQ(::ioctl(slave.get(), TCSETS2, &settings), 0); }
  void set_raw() const {
    struct termios2 raw = settings();
    raw.c_iflag = raw.c_oflag = 0;
    raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO | ISIG | IEXTEN);
    set(raw);
  }
  void set_silent() const {
    struct termios2 silent = settings();
    silent.c_lflag &= ~static_cast<tcflag_t>(ECHO);
    set(silent);
  }
  void type(std::string_view text) const {
    EXPECT_EQ(::write(master.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
    ::usleep(20000);  // the kernel moves it by a work queue
  }
  static std::string read(const Fd& fd, size_t most = 65536) {
    std::string out(most, '\0');
    pollfd p{.fd = fd.get(), .events = POLLIN, .revents = 0};
    ::poll(&p, 1, 0);
    const ssize_t got = ::read(fd.get(), out.data(), out.size());
    out.resize(got < 0 ? 0 : static_cast<size_t>(got));
    return got < 0 ? "nothing" : out;
  }
  static std::string read_all(const Fd& fd) {
    std::string out;
    for (std::string more; (more = read(fd)) != "nothing" && !more.empty();) out += more;
    return out;
  }
  PtyQueues copy(bool packet = false) const {
    const PtySides sides{.master = master.get(), .slave = slave.get(), .packet = packet, .who = "a pair"};
    return copy_queues({&sides, 1}).front();
  }
};

class TtyQueueTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!pair_.slave) GTEST_SKIP() << "no pseudo terminals here";
    if (::ioctl(pair_.master.get(), TIOCSTI, nullptr) != 0 && errno != EFAULT)
      GTEST_SKIP() << "nothing can be put into terminals here (TIOCSTI)";
  }
  Pair pair_;
};

// What a program finds, in the pair itself and in another one that is filled.
void expect_lines(const Pair& from, const std::vector<std::string>& lines, const std::string& rest) {
  const PtyQueues queues = from.copy();
  EXPECT_EQ(queues.lines, lines);
  EXPECT_EQ(queues.input, rest);
  const Pair other;
  fill_queues(other.master.get(), other.slave.get(), queues, from.settings(), "another pair");
  for (const Pair* pair : {&from, &other}) {
    for (const std::string& line : lines) EXPECT_EQ(Pair::read(pair->slave), line);
    EXPECT_EQ(Pair::read(pair->slave), "nothing");
    pair->type("X\n");
    EXPECT_EQ(Pair::read(pair->slave), rest + "X\n");
  }
}

TEST_F(TtyQueueTest, AnEmptyPairStaysAsItIs) {
  const struct termios2 before = pair_.settings();
  EXPECT_TRUE(pair_.copy().empty());
  const struct termios2 after = pair_.settings();
  EXPECT_EQ(memcmp(&before, &after, sizeof before), 0);
  EXPECT_EQ(Pair::read(pair_.slave), "nothing");
}

TEST_F(TtyQueueTest, LinesAndTheBeginningOfOne) {
  pair_.set_silent();
  pair_.type("one\ntwo\nthr");
  expect_lines(pair_, {"one\n", "two\n"}, "thr");
}

TEST_F(TtyQueueTest, ABeginningAlone) {
  pair_.set_silent();
  pair_.type("part");
  expect_lines(pair_, {}, "part");
}

TEST_F(TtyQueueTest, EndsOfFileAndQuotedCharacters) {
  pair_.set_silent();
  pair_.type("ab\x04");      // a line that ends without a newline
  pair_.type("\x04");        // the end of the file
  pair_.type("c\x16\nd\n");  // a newline in a line
  pair_.type("e\x16\x03\x16\x16\x16\x04");
  expect_lines(pair_, {"ab", "", "c\nd\n"}, "e\x03\x16\x04");
}

TEST_F(TtyQueueTest, RawInputOfAllBytes) {
  pair_.set_raw();
  std::string all(256, '\0');
  std::iota(all.begin(), all.end(), '\0');
  pair_.type(all);
  const PtyQueues queues = pair_.copy();
  EXPECT_EQ(queues.input, all);
  EXPECT_TRUE(queues.lines.empty());
  const Pair other;
  fill_queues(other.master.get(), other.slave.get(), queues, pair_.settings(), "another pair");
  EXPECT_EQ(Pair::read(pair_.slave), all);
  EXPECT_EQ(Pair::read(other.slave), all);
}

TEST_F(TtyQueueTest, FullBothWays) {
  pair_.set_raw();
  const auto fill = [](const Fd& fd) {
    std::string put;
    for (int number = 0;; ++number) {
      const std::string text = std::to_string(number) + "\x03\n\x04\x13";
      pollfd p{.fd = fd.get(), .events = POLLOUT, .revents = 0};
      if (::poll(&p, 1, 50) <= 0) break;
      const ssize_t got = ::write(fd.get(), text.data(), text.size());
      if (got <= 0) break;
      put += text.substr(0, static_cast<size_t>(got));
    }
    return put;
  };
  const std::string input = fill(pair_.master), output = fill(pair_.slave);
  EXPECT_GT(input.size(), 4096u);
  EXPECT_GT(output.size(), 4096u);
  const PtyQueues queues = pair_.copy();
  EXPECT_EQ(queues.input, input);
  EXPECT_EQ(queues.output, output);
  const Pair other;
  fill_queues(other.master.get(), other.slave.get(), queues, pair_.settings(), "another pair");
  for (const Pair* pair : {static_cast<const Pair*>(&pair_), &other}) {
    EXPECT_EQ(Pair::read_all(pair->slave), input);
    EXPECT_EQ(Pair::read_all(pair->master), output);
  }
}

TEST_F(TtyQueueTest, OutputIsNotProcessedAgain) {
  EXPECT_EQ(::write(pair_.slave.get(), "a\nb", 3), 3);  // ONLCR
  pair_.type("echo");
  const PtyQueues queues = pair_.copy();
  EXPECT_EQ(queues.output, "a\r\nbecho");
  EXPECT_EQ(Pair::read(pair_.master), "a\r\nbecho");
}

TEST_F(TtyQueueTest, PacketMode) {
  const int on = 1;
  ASSERT_EQ(::ioctl(pair_.master.get(), TIOCPKT, &on), 0);
  EXPECT_EQ(::write(pair_.slave.get(), "out", 3), 3);
  const PtyQueues queues = pair_.copy(true);
  EXPECT_EQ(queues.output, "out");
  EXPECT_EQ(Pair::read(pair_.master), std::string("\0out", 4));
}

TEST_F(TtyQueueTest, StoppedByCall) {
  pair_.set_silent();
  pair_.type("in");
  ASSERT_EQ(::ioctl(pair_.slave.get(), TCXONC, TCOOFF), 0);
  EXPECT_EQ(pair_.copy().stop, PtyQueues::Stop::by_call);
  const Pair other;
  fill_queues(other.master.get(), other.slave.get(), pair_.copy(), pair_.settings(), "another pair");
  for (const Pair* pair : {static_cast<const Pair*>(&pair_), &other}) {
    EXPECT_EQ(::write(pair->slave.get(), "x", 1), -1);
    pair->type("\x11");  // has no say in this
    EXPECT_EQ(::write(pair->slave.get(), "x", 1), -1);
    EXPECT_EQ(::ioctl(pair->slave.get(), TCXONC, TCOON), 0);
    EXPECT_EQ(::write(pair->slave.get(), "x", 1), 1);
  }
}

TEST_F(TtyQueueTest, StoppedByCharacter) {
  pair_.set_silent();
  pair_.type("in\x13");
  EXPECT_EQ(pair_.copy().stop, PtyQueues::Stop::by_character);
  const Pair other;
  fill_queues(other.master.get(), other.slave.get(), pair_.copy(), pair_.settings(), "another pair");
  for (const Pair* pair : {static_cast<const Pair*>(&pair_), &other}) {
    EXPECT_EQ(::write(pair->slave.get(), "x", 1), -1);
    EXPECT_EQ(::ioctl(pair->slave.get(), TCXONC, TCOON), 0);  // has no say in this
    EXPECT_EQ(::write(pair->slave.get(), "x", 1), -1);
    pair->type("\x11");
    EXPECT_EQ(::write(pair->slave.get(), "x", 1), 1);
    pair->type("\n");
    EXPECT_EQ(Pair::read(pair->slave), "in\n");
  }
}

TEST_F(TtyQueueTest, WhatWouldActIsRefused) {
  pair_.set_silent();
  for (int i = 0; i < 400; ++i) ASSERT_EQ(::write(pair_.master.get(), "123456789\n", 10), 10);
  ::usleep(20000);
  EXPECT_EQ(error_of([&] { pair_.copy(); }).reason(), Reason::UNSUPPORTED_FILE);
  EXPECT_EQ(Pair::read(pair_.slave), "123456789\n");
}

}  // namespace
}  // namespace stasis
