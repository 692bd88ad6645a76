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
  dump(slave_);
  const Error error = error_of([&] { Terminal::conclude(dump_files_, dumped_); });
  EXPECT_EQ(error.reason(), Reason::UNSUPPORTED_FILE);
  EXPECT_NE(error.remedy().find("--shell-job"), std::string::npos);
  EXPECT_NE(error.remedy().find("--external 'tty["), std::string::npos);
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

  Terminal::conclude(dump_files_, dumped_);
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

TEST_F(TerminalTest, ASecondTerminalFromOutsideIsRefused) {
  dump_options_.shell_job = true;
  dump(slave_);
  const Fd other_master(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
  ASSERT_EQ(::unlockpt(other_master.get()), 0);
  const Fd other = open_slave(other_master);
  dump(other);
  EXPECT_NE(error_of([&] { Terminal::conclude(dump_files_, dumped_); }).what_failed().find("more than one"),
            std::string::npos);
}

TEST_F(TerminalTest, TheTerminalOfASessionInTheTreeIsRefused) {
  dump_options_.shell_job = true;
  dump(slave_);
  uint32_t device = 0;
  ASSERT_EQ(::ioctl(slave_.get(), TIOCGDEV, &device), 0);
  dump_files_.tree_sessions = {{.leader = 42, .terminal = device, .foreground = 42}};
  EXPECT_NE(error_of([&] { Terminal::conclude(dump_files_, dumped_); }).what_failed().find("session inside the tree"),
            std::string::npos);
  Terminal::Shared without;
  const Error error = error_of([&] { Terminal::conclude(dump_files_, without); });
  EXPECT_NE(error.what_failed().find("no descriptor refers to it"), std::string::npos);
}

TEST_F(TerminalTest, AnExternalOneIsDescribedByItsKey) {
  const struct stat st = view_of(slave_.get()).st;
  const std::string key = fmt::format("tty[{:x}:{:x}]", st.st_rdev, st.st_dev);
  dump_options_.external = {key};
  Terminal::State state = dump(slave_);
  state.node_id = 0;
  EXPECT_GE(state.info_id >> 1, 1013u);
  Terminal::conclude(dump_files_, dumped_);
  EXPECT_EQ(dumped_.infos.at(state.info_id).type(), pb::EXT_TTY);

  restored_.infos = dumped_.infos;
  RestoreFiles files(restore_options_);
  const Error error = error_of([&] { Terminal::plan(state, files, restored_); });
  EXPECT_EQ(error.reason(), Reason::TERMINAL_MISSING);
  EXPECT_NE(error.remedy().find("--inherit-fd 'fd[N]:" + key), std::string::npos);
  const Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  restore_options_.inherit_fd = {{null.get(), key}};
  EXPECT_EQ(error_of([&] { Terminal::plan(state, files, restored_); }).reason(), Reason::TERMINAL_MISSING);
  restore_options_.inherit_fd = {{slave_.get(), key}};
  Terminal::plan(state, files, restored_);
  const Fd made = Terminal::create(state, files, restored_);
  EXPECT_EQ(view_of(made.get()).st.st_rdev, st.st_rdev);
}

TEST_F(TerminalTest, APairIsMadeAgain) {
  const winsize size{.ws_row = 33, .ws_col = 111, .ws_xpixel = 5, .ws_ypixel = 6};
  ASSERT_EQ(::ioctl(slave_.get(), TIOCSWINSZ, &size), 0);
  ASSERT_EQ(::write(master_.get(), "a line\nand", 10), 10);
  Terminal::State master = dump(master_), slave = dump(slave_);
  master.id = 1;
  slave.id = 2;
  unsigned index = 0;
  ASSERT_EQ(::ioctl(master_.get(), TIOCGPTN, &index), 0);
  EXPECT_EQ(master.info_id, (index << 1) | 1);
  EXPECT_EQ(slave.info_id, index << 1);
  Terminal::conclude(dump_files_, dumped_);
  Terminal::write_images(dumped_, store_);
  test::commit(store_);
  Terminal::read_images(store_, restored_);
  for (Terminal::State* state : {&master, &slave}) {
    pb::file_entry entry;
    pb::extension_file extension;
    state->node_id = 0;
    Terminal::encode(*state, entry);
    Terminal::encode_extension(*state, extension);
    *state = {};
    Terminal::decode(entry, *state);
    Terminal::decode_extension(extension, *state);
  }
  RestoreFiles files(restore_options_);
  Terminal::plan(master, files, restored_);
  Terminal::plan(slave, files, restored_);
  // The original still has the number.
  Terminal::Shared busy;
  Terminal::read_images(store_, busy);
  Terminal::plan(master, files, busy);
  EXPECT_EQ(error_of([&] { Terminal::create(master, files, busy); }).reason(), Reason::TERMINAL_TAKEN);
  master_.reset();
  slave_.reset();
  const Fd made = Terminal::create(master, files, restored_), peer = Terminal::create(slave, files, restored_);
  Terminal::complete(files, restored_);
  winsize found{};
  ASSERT_EQ(::ioctl(made.get(), TIOCGWINSZ, &found), 0);
  EXPECT_EQ(found.ws_col, 111);
  char text[32] = "";
  EXPECT_EQ(::read(peer.get(), text, sizeof text), 7);
  EXPECT_STREQ(text, "a line\n");
}

TEST_F(TerminalTest, RestoreChecksWhatItNeeds) {
  RestoreFiles files(restore_options_);
  Terminal::State state{.id = 1, .info_id = 6};
  EXPECT_EQ(error_of([&] { Terminal::plan(state, files, restored_); }).reason(), Reason::IMAGE_CORRUPT);
  restored_.infos[6].set_type(pb::PTY);
  restored_.infos[6].set_id(6);
  restored_.infos[6].mutable_termios();
  const Error error = error_of([&] { Terminal::plan(state, files, restored_); });
  EXPECT_EQ(error.reason(), Reason::TERMINAL_MISSING);
  EXPECT_NE(error.remedy().find("--shell-job"), std::string::npos);
  // The master is described, but nobody has it.
  restored_.infos[7].set_type(pb::PTY);
  Terminal::plan(state, files, restored_);
  EXPECT_EQ(error_of([&] { Terminal::create(state, files, restored_); }).reason(), Reason::IMAGE_CORRUPT);
}

// In a child, so that the standard descriptors of the test stay what they are.
TEST_F(TerminalTest, TheCallersTerminalIsOpenedAnew) {
  restore_options_.shell_job = true;
  restored_.infos[6].set_type(pb::PTY);
  restored_.infos[6].mutable_termios();
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
