#include "objects/files/regular.h"

#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>

#include "objects/files/test_support.h"

namespace stasis {
namespace {

using test::view_of;

class Regular : public testing::Test {
 protected:
  RegularFile::State dump(int fd) {
    FileView view = view_of(fd, 7);
    EXPECT_TRUE(RegularFile::match(view));
    RegularFile::State state;
    RegularFile::dump(view, dump_files_, shared_, state);
    return state;
  }
  void plan(const RegularFile::State& state) {
    RestoreFiles files(restore_options_);
    RegularFile::plan(state, files, shared_);
  }
  Fd create(const RegularFile::State& state) {
    RestoreFiles files(restore_options_);
    RegularFile::plan(state, files, shared_);
    Fd fd = RegularFile::create(state, files, shared_);
    RegularFile::finish(state, fd.get(), files, shared_);
    return fd;
  }

  test::Directory dir_;
  DumpOptions dump_options_;
  RestoreOptions restore_options_;
  test::LooseDump dump_files_{dump_options_};
  RegularFile::Shared shared_;
};

TEST_F(Regular, ComesBackAsItWas) {
  const std::string path = dir_.put("odd \"name\"\n\\%", "0123456789");
  const Fd fd(::open(path.c_str(), O_RDWR | O_APPEND | O_NONBLOCK | O_CLOEXEC));
  ASSERT_EQ(::lseek(fd.get(), 4, SEEK_SET), 4);
  f_owner_ex owner{F_OWNER_PID, ::getpid()};
  ASSERT_EQ(::fcntl(fd.get(), F_SETOWN_EX, &owner), 0);
  ASSERT_EQ(::fcntl(fd.get(), F_SETSIG, SIGRTMIN + 3), 0);

  const RegularFile::State state = dump(fd.get());
  EXPECT_EQ(state.path, path);
  EXPECT_EQ(state.pos, 4u);
  EXPECT_EQ(state.size_bytes, 10u);
  EXPECT_EQ(state.owner.pid, ::getpid());
  EXPECT_EQ(state.owner.type, 1u);

  const Fd again = create(state);
  EXPECT_EQ(::fcntl(again.get(), F_GETFL), ::fcntl(fd.get(), F_GETFL));
  EXPECT_EQ(::lseek(again.get(), 0, SEEK_CUR), 4);
  EXPECT_EQ(dump(again.get()), state);
}

TEST_F(Regular, EncodesEverything) {
  RegularFile::State state{.id = 3,
                           .flags = O_RDWR,
                           .pos = 1u << 20,
                           .owner = {1, 2, 3, 2, 5},
                           .path = "/a",
                           .mount_id = 12,
                           .size_bytes = uint64_t{1} << 40,
                           .mode = 0100755,
                           .build_id = {1, 2},
                           .external = true};
  pb::file_entry entry;
  RegularFile::encode(state, entry);
  EXPECT_EQ(entry.type(), pb::REG);
  EXPECT_EQ(entry.id(), 3u);
  RegularFile::State out;
  RegularFile::decode(entry, out);
  EXPECT_EQ(out, state);

  pb::file_entry bare;
  RegularFile::encode({.id = 4, .path = "/b"}, bare);
  EXPECT_FALSE(bare.reg().has_size() || bare.reg().has_mnt_id() || bare.reg().has_mode() || bare.reg().has_ext());
}

TEST_F(Regular, NamesThatAreNoPathsAreCorrupt) {
  pb::file_entry entry;
  RegularFile::State out;
  for (const std::string& name : {std::string("relative"), std::string(), std::string("/a\0b", 4)}) {
    RegularFile::encode({.id = 1, .path = name}, entry);
    EXPECT_EQ(error_of([&] { RegularFile::decode(entry, out); }).reason(), Reason::IMAGE_CORRUPT) << name;
  }
}

TEST_F(Regular, LogsMayGrow) {
  const std::string path = dir_.put("log", "one\n");
  const Fd fd(::open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
  const RegularFile::State state = dump(fd.get());
  EXPECT_FALSE(state.size_bytes);
  ASSERT_EQ(::write(fd.get(), "two\n", 4), 4);
  EXPECT_NO_THROW(plan(state));
}

TEST_F(Regular, FilesWithAnotherNameAreRefused) {
  const std::string path = dir_.put("file", "x");
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_EQ(::link(path.c_str(), (path + ".other").c_str()), 0);
  ASSERT_EQ(::unlink(path.c_str()), 0);
  const Error renamed = error_of([&] { dump(fd.get()); });
  EXPECT_EQ(renamed.reason(), Reason::FILE_UNREACHABLE);
  EXPECT_NE(renamed.remedy().find("--link-remap"), std::string::npos);
  EXPECT_NE(renamed.object().find("pid 42 (test)"), std::string::npos);
  dir_.put("file", "y");
  EXPECT_EQ(error_of([&] { dump(fd.get()); }).reason(), Reason::FILE_UNREACHABLE);
  ASSERT_EQ(::unlink((path + ".other").c_str()), 0);
  EXPECT_EQ(dump(fd.get()).path, path);
}

TEST_F(Regular, AFileMayBeCalledDeleted) {
  const std::string path = dir_.put("file (deleted)", "x");
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  EXPECT_EQ(dump(fd.get()).path, path);
}

TEST_F(Regular, ChangesAreFound) {
  const std::string path = dir_.put("file", "x");
  ASSERT_EQ(::chmod(path.c_str(), 0640), 0);
  const RegularFile::State state = dump(Fd(::open(path.c_str(), O_RDWR | O_CLOEXEC)).get());
  EXPECT_NO_THROW(plan(state));

  ASSERT_EQ(::chmod(path.c_str(), 0600), 0);
  const Error mode = error_of([&] { plan(state); });
  EXPECT_EQ(mode.reason(), Reason::FILE_CHANGED);
  EXPECT_EQ(mode.object(), path);
  EXPECT_NE(mode.remedy().find("--skip-file-rwx-check"), std::string::npos);
  restore_options_.skip_file_rwx_check = true;
  EXPECT_NO_THROW(plan(state));

  dir_.put("file", "longer");
  const Error grown = error_of([&] { plan(state); });
  EXPECT_EQ(grown.reason(), Reason::FILE_CHANGED);
  EXPECT_NE(grown.remedy().find("--allow-grown"), std::string::npos);
  restore_options_.allow_grown = true;
  EXPECT_NO_THROW(plan(state));
  dir_.put("file", "");
  const Error shrunk = error_of([&] { plan(state); });
  EXPECT_EQ(shrunk.reason(), Reason::FILE_CHANGED);
  EXPECT_EQ(shrunk.remedy().find("--allow-grown"), std::string::npos);
  ASSERT_EQ(::unlink(path.c_str()), 0);
  const Error missing = error_of([&] { plan(state); });
  EXPECT_EQ(missing.reason(), Reason::FILE_MISSING);
  EXPECT_EQ(missing.error_number(), ENOENT);
  // A FIFO in its place would block whoever opens it.
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  EXPECT_EQ(error_of([&] { plan(state); }).reason(), Reason::FILE_CHANGED);
}

TEST_F(Regular, ProgramsAreKnownByTheirBuildId) {
  Fd fd(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  RegularFile::State state = dump(fd.get());
  if (state.build_id.empty()) GTEST_SKIP() << "the linker leaves no build id here";
  EXPECT_NO_THROW(plan(state));
  state.build_id[0] ^= 1;
  const Error error = error_of([&] { plan(state); });
  EXPECT_EQ(error.reason(), Reason::FILE_CHANGED);
  EXPECT_NE(error.remedy().find("--file-validation filesize"), std::string::npos);
  restore_options_.file_validation = FileValidation::size;
  EXPECT_NO_THROW(plan(state));
}

TEST_F(Regular, DirectoriesLinksAndDevices) {
  const Fd dir(::open(dir_.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  EXPECT_EQ(::fcntl(create(dump(dir.get())).get(), F_GETFL), ::fcntl(dir.get(), F_GETFL));
  ASSERT_EQ(::symlink("/nowhere", (dir_.path() + "/link").c_str()), 0);
  const Fd link(::open((dir_.path() + "/link").c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  const Fd link_again = create(dump(link.get()));
  EXPECT_EQ(::fcntl(link_again.get(), F_GETFL), ::fcntl(link.get(), F_GETFL));
  EXPECT_EQ(test::link_of(link_again.get()), dir_.path() + "/link");
  const Fd null(::open("/dev/null", O_WRONLY | O_CLOEXEC));
  RegularFile::State null_state = dump(null.get());
  const Fd null_again = create(null_state);
  EXPECT_EQ(::write(null_again.get(), "x", 1), 1);
  pb::extension_file extension;
  RegularFile::encode_extension(null_state, extension);
  null_state.device.reset();
  RegularFile::decode_extension(extension, null_state);
  EXPECT_EQ(null_state.device, makedev(1, 3));
  null_state.path = "/dev/zero";
  EXPECT_EQ(error_of([&] { plan(null_state); }).reason(), Reason::FILE_CHANGED);
}

TEST_F(Regular, WhatIsNoFileWithAPathIsNotMatched) {
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const Fd reader(ends[0]), writer(ends[1]);
  const Fd memory(::memfd_create("x", MFD_CLOEXEC));
  const Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const Fd ns(::open("/proc/self/ns/uts", O_RDONLY | O_CLOEXEC));
  for (const int fd : {reader.get(), memory.get(), socket.get(), ns.get()})
    EXPECT_FALSE(RegularFile::match(view_of(fd))) << test::link_of(fd);
}

TEST_F(Regular, TheCallerCanGiveAnotherFile) {
  const std::string path = dir_.put("file", "x");
  const RegularFile::State state = dump(Fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC)).get());
  ASSERT_EQ(::unlink(path.c_str()), 0);
  const Fd other(::open("/dev/zero", O_RDONLY | O_CLOEXEC));
  restore_options_.inherit_fd.push_back({other.get(), path.substr(1)});
  EXPECT_EQ(test::link_of(create(state).get()), "/dev/zero");
}

TEST_F(Regular, PathFilesAreDescribedByAPathDescriptor) {
  const std::string path = dir_.put("file", "content");
  const Fd fd(::open(path.c_str(), O_PATH | O_CLOEXEC));
  PathFile file{.fd = fd.get(), .link = path, .flags = O_RDONLY, .who = "the executable of pid 42 (x)"};
  ASSERT_EQ(::fstat(fd.get(), &file.st), 0);
  const RegularFile::State state = describe_path_file(file, 9, dump_files_);
  EXPECT_EQ(state.id, 9u);
  EXPECT_EQ(state.size_bytes, 7u);
  const RestoreFiles files(restore_options_);
  EXPECT_NO_THROW(verify_path_file(state, files));
  EXPECT_EQ(::fcntl(open_path_file(state, files, O_RDWR).get(), F_GETFL) & O_ACCMODE, O_RDWR);
  // Renamed over: another file has the name.
  ASSERT_EQ(::link(path.c_str(), (path + ".other").c_str()), 0);
  ASSERT_EQ(::unlink(path.c_str()), 0);
  file.link = test::link_of(fd.get());
  ASSERT_EQ(::fstat(fd.get(), &file.st), 0);
  EXPECT_EQ(error_of([&] { describe_path_file(file, 9, dump_files_); }).object(), file.who);
  EXPECT_EQ(error_of([&] { open_path_file(state, files, O_RDONLY); }).reason(), Reason::FILE_MISSING);
}

}  // namespace
}  // namespace stasis
