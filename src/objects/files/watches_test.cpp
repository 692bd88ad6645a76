// inotify, fanotify, and the paths of what they watch.
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/sysmacros.h>

#include <algorithm>

#include "objects/files/fanotify.h"
#include "objects/files/inotify.h"
#include "objects/files/test_support.h"

namespace stasis {
namespace {

using test::view_of;

// With an open file that was deleted.
class DumpWithDeleted final : public DumpFiles {
 public:
  explicit DumpWithDeleted(const DumpOptions& options) : DumpFiles(options) {}
  uint32_t add_path_file(const PathFile&) override { return next_id(); }
  uint32_t deleted_file(dev_t dev, ino_t ino) override { return dev == st.st_dev && ino == st.st_ino ? 77 : 0; }
  struct stat st {};
};

class WatchesTest : public testing::Test {
 protected:
  template <class K>
  typename K::State dump(const Fd& fd) {
    const FileView view = view_of(fd.get());
    EXPECT_TRUE(K::match(view));
    typename K::State state;
    typename K::Shared shared;
    K::dump(view, dump_files_, shared, state);
    K::conclude(dump_files_, shared);
    return state;
  }
  template <class K>
  static typename K::State through_images(const typename K::State& state) {
    pb::file_entry entry;
    pb::extension_file extension;
    K::encode(state, entry);
    K::encode_extension(state, extension);
    typename K::State out;
    K::decode(entry, out);
    K::decode_extension(extension, out);
    return out;
  }
  template <class K>
  Fd restore(const typename K::State& state) {
    RestoreFiles files(restore_options_);
    typename K::Shared shared;
    K::plan(state, files, shared);
    Fd fd = K::create(state, files, shared);
    files.fd_of = [&](uint32_t id) { return id == state.id ? fd.get() : open_file_; };
    K::finish(state, fd.get(), files, shared);
    K::complete(files, shared);
    return fd;
  }
  static std::string lines(const Fd& fd) {
    const std::string text = own_fdinfo(fd.get());
    return text.substr(text.find("notify ") == std::string::npos ? text.size() : text.find("notify "));
  }

  test::Directory dir_;
  DumpOptions dump_options_;
  RestoreOptions restore_options_;
  DumpWithDeleted dump_files_{dump_options_};
  int open_file_ = -1;
};

TEST_F(WatchesTest, InotifyKeepsNumbersAndMasks) {
  const Fd fd(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  ASSERT_EQ(::inotify_add_watch(fd.get(), dir_.put("a", "").c_str(), IN_MODIFY), 1);
  ASSERT_EQ(::inotify_add_watch(fd.get(), dir_.put("b", "").c_str(), IN_MODIFY), 2);
  ASSERT_EQ(::inotify_add_watch(fd.get(), dir_.path().c_str(), IN_CREATE | IN_EXCL_UNLINK | IN_ONESHOT), 3);
  ASSERT_EQ(::inotify_rm_watch(fd.get(), 2), 0);
  char drain[64];
  ASSERT_GT(::read(fd.get(), drain, sizeof drain), 0);
  const Inotify::State state = dump<Inotify>(fd);
  const Inotify::State read = through_images<Inotify>(state);
  EXPECT_EQ(*read.watches, *state.watches);
  EXPECT_EQ(read.watches->front().target.path, dir_.path() + "/a");
  EXPECT_TRUE(dump_files_.losses.empty());
  EXPECT_EQ(lines(restore<Inotify>(read)), lines(fd));
}

TEST_F(WatchesTest, UnreadEventsAreALoss) {
  const Fd fd(::inotify_init1(IN_CLOEXEC));
  ASSERT_EQ(::inotify_add_watch(fd.get(), dir_.path().c_str(), IN_CREATE), 1);
  dir_.put("new", "");
  dump<Inotify>(fd);
  ASSERT_EQ(dump_files_.losses.size(), 1u);
  EXPECT_EQ(dump_files_.losses[0].name, "unread-events");
}

TEST_F(WatchesTest, ADeletedFileIsFoundAmongTheOpenOnes) {
  const Fd fd(::inotify_init1(IN_CLOEXEC));
  const std::string path = dir_.put("deleted", "");
  const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_EQ(::inotify_add_watch(fd.get(), path.c_str(), IN_OPEN), 1);
  ASSERT_EQ(::unlink(path.c_str()), 0);
  ASSERT_EQ(::fstat(file.get(), &dump_files_.st), 0);
  const Inotify::State state = through_images<Inotify>(dump<Inotify>(fd));
  EXPECT_EQ(state.watches->front().file, 77u);
  open_file_ = file.get();
  EXPECT_EQ(lines(restore<Inotify>(state)), lines(fd));
  dump_files_.st = {};
  EXPECT_EQ(error_of([&] { dump<Inotify>(fd); }).reason(), Reason::UNSUPPORTED_FILE);
}

TEST_F(WatchesTest, WithoutAHandleAPathIsSearchedFor) {
  const std::string path = dir_.put("file", "");
  struct stat st;
  ASSERT_EQ(::stat(path.c_str(), &st), 0);
  WatchedInode inode{.inode = st.st_ino, .device = static_cast<uint32_t>(major(st.st_dev) << 20 | minor(st.st_dev))};
  WatchedInode* const all[] = {&inode};
  EXPECT_EQ(error_of([&] { find_targets(all, WatchedPaths(), dump_files_, "x", [](size_t, uint32_t) {}); }).reason(),
            Reason::UNSUPPORTED_FILE);
  dump_options_.irmap_scan_paths = {dir_.path()};
  find_targets(all, WatchedPaths(), dump_files_, "x", [](size_t, uint32_t) {});
  EXPECT_EQ(inode.path, path);
}

TEST_F(WatchesTest, RootsOfFileSystemsNeedNoHandle) {
  struct stat st;
  ASSERT_EQ(::stat("/proc", &st), 0);
  WatchedInode inode{.inode = st.st_ino, .device = static_cast<uint32_t>(major(st.st_dev) << 20 | minor(st.st_dev))};
  WatchedInode* const all[] = {&inode};
  WatchedPaths().resolve(all);
  EXPECT_EQ(inode.path, "/proc");
}

TEST_F(WatchesTest, ImpossibleWatchesAreCorrupt) {
  Inotify::State state;
  const auto reason = [&](Inotify::Watches watches) {
    *state.watches = std::move(watches);
    return error_of([&] { through_images<Inotify>(state); }).reason();
  };
  EXPECT_EQ(reason({{.wd = 0}}), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(reason({{.wd = 1u << 31}}), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(reason({{.wd = 2}, {.wd = 2}}), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(reason({{.wd = 2, .target = {.path = "relative"}}}), Reason::IMAGE_CORRUPT);
  pb::fh_entry handle;
  handle.set_bytes(9);
  handle.set_type(1);
  handle.add_handle(1);
  WatchedInode inode;
  EXPECT_EQ(error_of([&] { decode_handle(handle, inode); }).reason(), Reason::IMAGE_CORRUPT);
  handle.set_bytes(8);
  EXPECT_NO_THROW(decode_handle(handle, inode));
  EXPECT_EQ(inode.handle.size(), 8u);
}

TEST_F(WatchesTest, WhatIsGoneAtTheRestoreIsMissing) {
  Inotify::State state;
  state.watches->push_back({.wd = 1, .mask = IN_OPEN, .target = {.path = dir_.path() + "/gone"}});
  EXPECT_EQ(error_of([&] { restore<Inotify>(state); }).reason(), Reason::FILE_MISSING);
}

TEST_F(WatchesTest, FanotifyKeepsMarksOfAllKinds) {
  const Fd fd(::fanotify_init(FAN_CLASS_NOTIF | FAN_CLOEXEC | FAN_NONBLOCK, O_RDONLY | O_CLOEXEC));
  if (!fd) GTEST_SKIP() << "fanotify";
  const std::string file = dir_.put("file", "");
  const auto mark = [&](unsigned how, uint64_t mask, const std::string& path) {
    ASSERT_EQ(::fanotify_mark(fd.get(), FAN_MARK_ADD | how, mask, AT_FDCWD, path.c_str()), 0) << path;
  };
  mark(0, FAN_OPEN_EXEC | FAN_EVENT_ON_CHILD | FAN_ONDIR, dir_.path());
  mark(0, FAN_MODIFY, file);
  mark(FAN_MARK_IGNORED_MASK | FAN_MARK_IGNORED_SURV_MODIFY, FAN_CLOSE_WRITE, file);
  mark(FAN_MARK_MOUNT, FAN_OPEN_EXEC, "/dev/shm");
  mark(FAN_MARK_FILESYSTEM, FAN_OPEN_EXEC, "/dev/pts");
  const Fanotify::State state = dump<Fanotify>(fd);
  const Fanotify::State read = through_images<Fanotify>(state);
  EXPECT_EQ(read.group_flags, state.group_flags);
  EXPECT_EQ(read.event_flags, state.event_flags);
  EXPECT_EQ(read.marks->size(), 4u);
  const auto sorted = [](const std::string& text) {
    std::vector<std::string> out;
    for (size_t at = 0; at < text.size(); at = text.find('\n', at) + 1)
      out.push_back(text.substr(at, text.find('\n', at) - at));
    std::ranges::sort(out);
    return out;
  };
  EXPECT_EQ(sorted("fa" + lines(restore<Fanotify>(read))), sorted("fa" + lines(fd)));
}

TEST_F(WatchesTest, FanotifyForPermissionIsRefused) {
  const Fd fd(::fanotify_init(FAN_CLASS_CONTENT | FAN_CLOEXEC | FAN_NONBLOCK, O_RDONLY | O_CLOEXEC));
  if (!fd) GTEST_SKIP() << "fanotify";
  const std::string file = dir_.put("file", "");
  ASSERT_EQ(::fanotify_mark(fd.get(), FAN_MARK_ADD, FAN_OPEN_PERM, AT_FDCWD, file.c_str()), 0);
  EXPECT_EQ(error_of([&] { dump<Fanotify>(fd); }).reason(), Reason::UNSUPPORTED_FILE);
}

}  // namespace
}  // namespace stasis
