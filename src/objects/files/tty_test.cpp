#include "objects/files/tty.h"

#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>

#include <csignal>

#include "objects/files/test_support.h"

namespace stasis {
namespace {

using test::view_of;

class TerminalTest : public testing::Test {
 protected:
  void SetUp() override {
    master_ = Fd(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
    if (!master_ || ::unlockpt(master_.get()) < 0) GTEST_SKIP() << "no pseudo terminals here";
    slave_ = open_slave(master_);
    ASSERT_TRUE(slave_);
  }
  static Fd open_slave(const Fd& master) {
    char name[64];
    if (::ptsname_r(master.get(), name, sizeof name) != 0) return {};
    return Fd(::open(name, O_RDWR | O_NOCTTY | O_CLOEXEC));
  }
  Terminal::State dump(const Fd& fd) {
    const FileView view = view_of(fd.get());
    EXPECT_TRUE(Terminal::match(view));
    Terminal::State state;
    Terminal::dump(view, dump_files_, dumped_, state);
    return state;
  }

  Fd master_, slave_;
  DumpOptions dump_options_;
  RestoreOptions restore_options_;
  test::LooseDump dump_files_{dump_options_};
  ImageStore store_ = ImageStore::in_memory();
  Terminal::Shared dumped_, restored_;
};

TEST_F(TerminalTest, NeedsShellJob) {
  const Error error = error_of([&] { dump(slave_); });
  EXPECT_EQ(error.reason(), Reason::UNSUPPORTED_FILE);
  EXPECT_NE(error.remedy().find("--shell-job"), std::string::npos);
}

TEST_F(TerminalTest, IsDescribed) {
  dump_options_.shell_job = true;
  const winsize size{.ws_row = 33, .ws_col = 111, .ws_xpixel = 5, .ws_ypixel = 6};
  ASSERT_EQ(::ioctl(slave_.get(), TIOCSWINSZ, &size), 0);
  struct termios settings;
  ASSERT_EQ(::tcgetattr(slave_.get(), &settings), 0);
  ::cfmakeraw(&settings);
  settings.c_cc[VMIN] = 9;
  ASSERT_EQ(::tcsetattr(slave_.get(), TCSANOW, &settings), 0);

  const Terminal::State state = dump(slave_);
  unsigned index = 0;
  ASSERT_EQ(::ioctl(master_.get(), TIOCGPTN, &index), 0);
  EXPECT_EQ(state.info_id, index << 1);
  ASSERT_EQ(dump_files_.path_files.size(), 1u);
  EXPECT_EQ(dump_files_.path_files[0].link, test::link_of(slave_.get()));
  EXPECT_FALSE(dump_files_.path_files[0].must_exist);

  pb::file_entry entry;
  Terminal::encode(state, entry);
  Terminal::State decoded;
  Terminal::decode(entry, decoded);
  EXPECT_EQ(decoded, state);

  Terminal::write_images(dumped_, store_);
  test::commit(store_);
  Terminal::read_images(store_, restored_);
  const pb::tty_info_entry& info = restored_.infos.at(state.info_id);
  EXPECT_EQ(info.type(), pb::PTY);
  EXPECT_EQ(info.pty().index(), index);
  EXPECT_EQ(info.winsize().ws_row(), 33u);
  EXPECT_EQ(info.winsize().ws_col(), 111u);
  EXPECT_EQ(info.termios().c_lflag(), settings.c_lflag);
  ASSERT_EQ(info.termios().c_cc_size(), 19);
  EXPECT_EQ(info.termios().c_cc(VMIN), 9u);
  EXPECT_EQ(info.termios().c_ospeed(), 38400u);
  EXPECT_EQ(info.termios_locked().c_cc_size(), 19);
  EXPECT_EQ(info.rdev(), view_of(slave_.get()).st.st_rdev);
}

TEST_F(TerminalTest, MastersAndSecondTerminalsAreRefused) {
  dump_options_.shell_job = true;
  EXPECT_NE(error_of([&] { dump(master_); }).what_failed().find("master"), std::string::npos);
  dump(slave_);
  const Fd other_master(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
  ASSERT_EQ(::unlockpt(other_master.get()), 0);
  const Fd other = open_slave(other_master);
  EXPECT_NE(error_of([&] { dump(other); }).what_failed().find("more than one"), std::string::npos);
}

TEST_F(TerminalTest, TheTerminalOfASessionInTheTreeIsRefused) {
  dump_options_.shell_job = true;
  int ready[2];
  ASSERT_EQ(::pipe2(ready, O_CLOEXEC), 0);
  const Fd reader(ready[0]);
  Fd writer(ready[1]);
  const pid_t child = ::fork();
  if (child == 0) {
    ::setsid();
    const bool ok = ::ioctl(slave_.get(), TIOCSCTTY, 0) == 0;
    if (::write(writer.get(), ok ? "y" : "n", 1) == 1) ::pause();
    ::_exit(0);
  }
  char answer = 0;
  ASSERT_EQ(::read(reader.get(), &answer, 1), 1);
  EXPECT_EQ(answer, 'y');
  dump_files_.tree_sessions = {child};
  EXPECT_NE(error_of([&] { dump(slave_); }).what_failed().find("session inside the tree"), std::string::npos);
  ::kill(child, SIGKILL);
  int status;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
}

TEST_F(TerminalTest, RestoreChecksWhatItNeeds) {
  RestoreFiles files(restore_options_);
  Terminal::State state{.id = 1, .info_id = 6};
  EXPECT_EQ(error_of([&] { Terminal::plan(state, files, restored_); }).reason(), Reason::IMAGE_CORRUPT);
  restored_.infos[6].set_type(pb::PTY);
  const Error error = error_of([&] { Terminal::plan(state, files, restored_); });
  EXPECT_EQ(error.reason(), Reason::TERMINAL_MISSING);
  EXPECT_NE(error.remedy().find("--shell-job"), std::string::npos);
  restore_options_.shell_job = true;
  restored_.infos[7].set_type(pb::PTY);
  state.info_id = 7;
  EXPECT_EQ(error_of([&] { Terminal::plan(state, files, restored_); }).reason(), Reason::IMAGE_UNSUPPORTED);
}

// In a child, so that the standard descriptors of the test stay what they are.
TEST_F(TerminalTest, TheCallersTerminalIsOpenedAnew) {
  restore_options_.shell_job = true;
  restored_.infos[6].set_type(pb::PTY);
  const pid_t child = ::fork();
  if (child == 0) {
    ::setsid();
    const Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    for (int fd = 0; fd <= 2; ++fd) ::dup2(null.get(), fd);
    RestoreFiles files(restore_options_);
    const Terminal::State state{.id = 1, .info_id = 6, .flags = O_WRONLY | O_NONBLOCK};
    bool ok = error_of([&] { Terminal::plan(state, files, restored_); }).reason() == Reason::TERMINAL_MISSING;
    restored_.terminal_checked = false;
    ::dup2(slave_.get(), 2);
    Terminal::plan(state, files, restored_);
    const Fd fd = Terminal::create(state, files, restored_);
    struct stat a, b;
    ok = ok && ::fstat(fd.get(), &a) == 0 && ::fstat(slave_.get(), &b) == 0 && a.st_rdev == b.st_rdev;
    const int flags = ::fcntl(fd.get(), F_GETFL);
    ok = ok && (flags & (O_ACCMODE | O_NONBLOCK)) == (O_WRONLY | O_NONBLOCK);
    ::_exit(ok ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace stasis
