// Files without a name, from RemapTable through images to RestoredRemaps.
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cstddef>
#include <functional>
#include <set>

#include "objects/files/ghost.h"
#include "objects/files/regular.h"
#include "objects/files/test_support.h"
#include "proto/pstree.pb.h"

namespace stasis {
namespace {

using test::link_of;
using test::view_of;

class Remaps : public testing::Test {
 protected:
  RegularFile::State dump(int fd, uint32_t id) {
    RegularFile::State state;
    RegularFile::dump(view_of(fd, id), dump_files_, shared_, state);
    states_.push_back(state);
    return state;
  }
  void write() {
    dump_files_.remaps.copy_contents(store_);
    dump_files_.remaps.encode(store_, store_.writer(ImageKind::FILES));
    pb::extension_head head;
    head.set_version(1);
    dump_files_.remaps.encode_extension(head);
    head_ = head;
    test::commit(store_);
  }
  void make() {
    restore_files_.remaps.read(store_);
    restore_files_.remaps.read_extension(head_);
    for (const auto& remap : restore_files_.remaps.remaps())
      for (const RegularFile::State& state : states_)
        if (state.id == remap.file_id) restore_files_.remaps.set_name(remap, state.path, state.flags, link_path(remap));
    restore_files_.remaps.create(store_);
    restore_files_.remaps.finish();
  }
  std::string link_path(const RestoredRemaps::Remap& remap) {
    std::optional<ImageReader> reader = store_.reader(ImageKind::FILES);
    pb::file_entry entry;
    while (reader && reader->next(entry))
      if (entry.id() == remap.stand_in && remap.type == pb::LINKED) return entry.reg().name();
    return "";
  }
  Fd restored(const RegularFile::State& state) {
    Fd fd = RegularFile::create(state, restore_files_, shared_);
    EXPECT_EQ(::fcntl(fd.get(), F_GETFL), static_cast<int>(state.flags));
    return fd;
  }
  std::set<std::string> names() const {
    std::set<std::string> out;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(dir_.path())) out.insert(entry.path());
    return out;
  }
  Fd deleted(const std::string& name, const std::string& content, int flags = O_RDWR) {
    const std::string path = dir_.put(name, content);
    Fd fd(::open(path.c_str(), flags | O_CLOEXEC));
    EXPECT_EQ(::unlink(path.c_str()), 0);
    return fd;
  }
  static std::string content_of(int fd) {
    std::string text(100, '\0');
    const ssize_t got = ::pread(fd, text.data(), text.size(), 0);
    text.resize(static_cast<size_t>(std::max<ssize_t>(got, 0)));
    return text;
  }

  test::Directory dir_;
  DumpOptions dump_options_;
  RestoreOptions restore_options_;
  test::LooseDump dump_files_{dump_options_};
  RestoreFiles restore_files_{restore_options_};
  RegularFile::Shared shared_;
  ImageStore store_ = ImageStore::in_memory();
  std::vector<RegularFile::State> states_;
  pb::extension_head head_;
};

TEST_F(Remaps, ADeletedFileComesBackWithoutAName) {
  const Fd fd = deleted("file", "content");
  const Fd second = reopen(fd.get(), O_RDONLY | O_CLOEXEC);
  ASSERT_EQ(::fchmod(fd.get(), 04711), 0);
  const timespec times[2] = {{1000000007, 123456789}, {1100000003, 987654321}};
  ASSERT_EQ(::futimens(fd.get(), times), 0);
  const RegularFile::State one = dump(fd.get(), 1), two = dump(second.get(), 2);
  EXPECT_EQ(one.path, dir_.path() + "/file");
  write();
  EXPECT_TRUE(store_.open_streamed(ImageKind::GHOST_FILE, 1));
  EXPECT_FALSE(store_.open_streamed(ImageKind::GHOST_FILE, 2));
  make();
  EXPECT_EQ(names(), std::set<std::string>());
  const Fd again = restored(one), other = restored(two);
  struct stat a, b;
  ASSERT_EQ(::fstat(again.get(), &a), 0);
  ASSERT_EQ(::fstat(other.get(), &b), 0);
  EXPECT_EQ(a.st_ino, b.st_ino);
  EXPECT_EQ(a.st_nlink, 0u);
  EXPECT_EQ(a.st_mode & 07777, 04711u);
  EXPECT_EQ(a.st_mtim.tv_nsec, 987654321);
  EXPECT_EQ(a.st_atim.tv_nsec, 123456789);
  EXPECT_EQ(content_of(again.get()), "content");
  EXPECT_EQ(link_of(again.get()), dir_.path() + "/file (deleted)");
}

TEST_F(Remaps, SmallFilesAreStoredAsAWholeLargeOnesInChunks) {
  const Fd small = deleted("small", std::string(12287, 's'));
  const Fd large = deleted("large", std::string(12288, 'l'));
  dump(small.get(), 1);
  dump(large.get(), 2);
  write();
  pb::ghost_file_entry head;
  std::optional<StreamReader> reader = StreamReader::open(store_, ImageKind::GHOST_FILE, 1);
  ASSERT_TRUE(reader->next(head));
  EXPECT_FALSE(head.has_chunks());
  EXPECT_EQ(reader->left_bytes(), 12287u);
  reader = StreamReader::open(store_, ImageKind::GHOST_FILE, 2);
  ASSERT_TRUE(reader->next(head));
  EXPECT_TRUE(head.chunks());
  EXPECT_EQ(head.size(), 12288u);
  pb::ghost_chunk_entry chunk;
  ASSERT_TRUE(reader->next(chunk));
  EXPECT_EQ(chunk.off(), 0u);
  EXPECT_EQ(chunk.len(), 12288u);
  EXPECT_EQ(reader->left_bytes(), 12288u);
}

TEST_F(Remaps, HolesAreFoundByEitherWay) {
  for (const std::string& base : {dir_.path(), std::string("/var/tmp")}) {
    const Fd fd(::open(base.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
    ASSERT_TRUE(fd);
    for (const off_t at : {off_t{4} << 12, off_t{5} << 12, off_t{1} << 32})
      ASSERT_EQ(::pwrite(fd.get(), std::string(4096, 'x').data(), 4096, at), 4096);
    ASSERT_EQ(::ftruncate(fd.get(), (off_t{1} << 32) + 8192), 0);
    const std::vector<AddressRange> wanted = {{4u << 12, 6u << 12}, {uint64_t{1} << 32, (uint64_t{1} << 32) + 4096}};
    for (const bool by_extents : {false, true})
      EXPECT_EQ(file_data(fd.get(), (uint64_t{1} << 32) + 8192, by_extents, "the file"), wanted) << base << by_extents;
  }
}

TEST_F(Remaps, ANameThatIsTakenIsNotTouched) {
  const Fd fd = deleted("file", "mine");
  const RegularFile::State state = dump(fd.get(), 1);
  write();
  const std::string other = dir_.put("file", "another");
  struct stat before, after;
  ASSERT_EQ(::stat(other.c_str(), &before), 0);
  make();
  ASSERT_EQ(::stat(other.c_str(), &after), 0);
  EXPECT_EQ(before.st_ino, after.st_ino);
  EXPECT_EQ(before.st_ctim.tv_nsec, after.st_ctim.tv_nsec);
  EXPECT_EQ(names(), std::set<std::string>{other});
  const Fd again = restored(state);
  EXPECT_EQ(content_of(again.get()), "mine");
  EXPECT_EQ(link_of(again.get()), dir_.path() + "/file.ghost.1 (deleted)");
}

TEST_F(Remaps, ParentsThatAreGoneAreMadeForAMoment) {
  ASSERT_EQ(::mkdir((dir_.path() + "/a").c_str(), 0700), 0);
  ASSERT_EQ(::mkdir((dir_.path() + "/a/b").c_str(), 0751), 0);
  const Fd fd = deleted("a/b/file", "content");
  const Fd directory(::open((dir_.path() + "/a/b").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  ASSERT_EQ(::rmdir((dir_.path() + "/a/b").c_str()), 0);
  ASSERT_EQ(::rmdir((dir_.path() + "/a").c_str()), 0);
  const RegularFile::State file = dump(fd.get(), 1), dir = dump(directory.get(), 2);
  write();
  make();
  EXPECT_EQ(names(), std::set<std::string>());
  EXPECT_EQ(link_of(restored(file).get()), dir_.path() + "/a/b/file (deleted)");
  const Fd again = restored(dir);
  EXPECT_EQ(link_of(again.get()), dir_.path() + "/a/b (deleted)");
  struct stat st;
  ASSERT_EQ(::fstat(again.get(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0751u);
}

TEST_F(Remaps, AFailureLeavesNothing) {
  ASSERT_EQ(::mkdir((dir_.path() + "/a").c_str(), 0700), 0);
  const Fd fd = deleted("a/file", "content");
  const Fd directory(::open((dir_.path() + "/a").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  ASSERT_EQ(::rmdir((dir_.path() + "/a").c_str()), 0);
  dump(directory.get(), 1);
  dump(fd.get(), 2);
  write();
  {
    // The contents disappear between plan and creation.
    RestoreFiles files(restore_options_);
    files.remaps.read(store_);
    for (const auto& remap : files.remaps.remaps())
      files.remaps.set_name(remap, states_.at(remap.file_id - 1).path, O_RDWR, "");
    const ImageStore empty = ImageStore::in_memory();
    EXPECT_EQ(error_of([&] { files.remaps.create(empty); }).reason(), Reason::IMAGE_MISSING);
  }
  EXPECT_EQ(names(), std::set<std::string>());
}

// Runs `body` in a child where open(O_TMPFILE) fails as on a file system that has no such thing.
void without_unnamed_files(const std::function<void()>& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, O_TMPFILE & ~O_DIRECTORY, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EOPNOTSUPP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const sock_fprog program = {std::size(code), code};
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
      ::_exit(2);
    EXPECT_NO_THROW(body());
    ::_exit(testing::Test::HasFailure() ? 1 : 0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

TEST_F(Remaps, FileSystemsWithoutUnnamedFilesDo) {
  const Fd fd = deleted("file", "content"), taken = deleted("taken", "mine");
  const RegularFile::State one = dump(fd.get(), 1), two = dump(taken.get(), 2);
  write();
  const std::string other = dir_.put("taken", "another");
  without_unnamed_files([&] {
    make();
    EXPECT_EQ(names(), std::set<std::string>{other});
    EXPECT_EQ(link_of(restored(one).get()), dir_.path() + "/file (deleted)");
    EXPECT_EQ(content_of(restored(two).get()), "mine");
    struct stat st;
    EXPECT_TRUE(::fstat(restored(two).get(), &st) == 0 && st.st_nlink == 0);
  });
}

TEST_F(Remaps, UnnamedFilesStayWhatTheyWere) {
  const Fd fd(::open(dir_.path().c_str(), O_TMPFILE | O_RDWR | O_APPEND | O_CLOEXEC, 0600));
  const Fd reader = reopen(fd.get(), O_RDONLY | O_CLOEXEC);
  ASSERT_EQ(::write(fd.get(), "content", 7), 7);
  const RegularFile::State one = dump(fd.get(), 1), two = dump(reader.get(), 2);
  write();
  make();
  const Fd again = restored(one);
  EXPECT_EQ(content_of(restored(two).get()), "content");
  const std::string name = dir_.path() + "/named";
  EXPECT_EQ(::linkat(again.get(), "", AT_FDCWD, name.c_str(), AT_EMPTY_PATH), 0) << errno;
}

TEST_F(Remaps, OtherNamesNeedALink) {
  const std::string path = dir_.put("gone", "content");
  const Fd fd(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  ASSERT_EQ(::rename(path.c_str(), (dir_.path() + "/kept").c_str()), 0);
  EXPECT_EQ(dump(fd.get(), 1).path, dir_.path() + "/kept");  // a file knows when it is renamed
  ASSERT_EQ(::link((dir_.path() + "/kept").c_str(), path.c_str()), 0);
  ASSERT_EQ(::unlink((dir_.path() + "/kept").c_str()), 0);
  states_.clear();
  EXPECT_EQ(error_of([&] { dump(fd.get(), 1); }).reason(), Reason::FILE_UNREACHABLE);
  dump_options_.link_remap = true;
  {
    test::LooseDump failing(dump_options_);
    RegularFile::State state;
    RegularFile::dump(view_of(fd.get(), 1), failing, shared_, state);
    EXPECT_EQ(names().size(), 2u);
  }
  EXPECT_EQ(names().size(), 1u);
  dump_files_.next_id();
  const RegularFile::State state = dump(fd.get(), 1);
  write();
  dump_files_.remaps.keep_links();
  make();
  const Fd again = restored(state);
  EXPECT_EQ(link_of(again.get()), dir_.path() + "/kept (deleted)");
  struct stat st;
  ASSERT_EQ(::fstat(again.get(), &st), 0);
  EXPECT_EQ(st.st_nlink, 2u);
  restore_files_.remaps.remove_links();
  EXPECT_EQ(names(), std::set<std::string>{path});
}

TEST_F(Remaps, FilesOfDeadProcesses) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::pause();
    ::_exit(0);
  }
  const std::string directory = fmt::format("/proc/{}", child);
  const Fd stat(::open((directory + "/stat").c_str(), O_RDONLY | O_CLOEXEC));
  const Fd fds(::open((directory + "/fd/0").c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  RegularFile::State state;
  const FileView view = view_of(fds.get());
  EXPECT_EQ(error_of([&] { RegularFile::dump(view, dump_files_, shared_, state); }).reason(), Reason::UNSUPPORTED_FILE);
  const std::string link = link_of(stat.get());
  state = dump(stat.get(), 1);
  EXPECT_EQ(state.path, directory + "/stat");
  write();
  make();
  const Fd again = restored(state);
  EXPECT_EQ(link_of(again.get()), link);
  char byte;
  EXPECT_TRUE(::read(again.get(), &byte, 1) == -1 && errno == ESRCH);
  EXPECT_EQ(::kill(child, 0), -1);
}

class GhostImage : public testing::Test {
 protected:
  // Of the image that starts with `head`, followed by `chunks` with their bytes.
  Reason reason(const pb::ghost_file_entry& head, const std::vector<std::pair<uint64_t, uint64_t>>& chunks) {
    ImageStore store = ImageStore::in_memory();
    StreamWriter writer(store, ImageKind::GHOST_FILE, 1);
    writer.write(head);
    const Fd zero(::open("/dev/zero", O_RDONLY | O_CLOEXEC));
    for (const auto& [offset, bytes] : chunks) {
      pb::ghost_chunk_entry entry;
      entry.set_off(offset);
      entry.set_len(bytes);
      writer.write(entry);
      if (bytes < 1u << 20) writer.copy(zero.get(), 0, bytes, "zeros");
    }
    writer.close();
    std::optional<StreamReader> reader = StreamReader::open(store, ImageKind::GHOST_FILE, 1);
    return error_of([&] { read_ghost(*reader); }).reason();
  }
  static pb::ghost_file_entry head(uint32_t mode, uint64_t size_bytes) {
    pb::ghost_file_entry entry;
    entry.set_uid(0);
    entry.set_gid(0);
    entry.set_mode(mode);
    entry.set_chunks(true);
    entry.set_size(size_bytes);
    return entry;
  }
};

TEST_F(GhostImage, DamageIsFound) {
  EXPECT_EQ(reason(head(S_IFREG | 0600, 8192), {{0, 4096}, {4095, 10}}), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(reason(head(S_IFREG | 0600, 8192), {{4096, 4097}}), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(reason(head(S_IFREG | 0600, 8192), {{~uint64_t{0}, 2}}), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(reason(head(S_IFREG | 0600, uint64_t{1} << 40), {{0, uint64_t{1} << 39}}), Reason::IMAGE_TRUNCATED);
  EXPECT_EQ(reason(head(S_IFREG | 0600, ~uint64_t{0}), {}), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(reason(head(0170000 | 0600, 0), {}), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(reason(head(S_IFLNK | 0777, 0), {}), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(reason(head(S_IFDIR | 0777, 4096), {{0, 1}}), Reason::IMAGE_CORRUPT);
}

}  // namespace
}  // namespace stasis
