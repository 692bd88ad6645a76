#include "objects/files/file_table.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <csignal>
#include <set>

#include "kernel/process.h"
#include "objects/files/restored_files.h"
#include "objects/files/test_support.h"

namespace stasis {
namespace {

// This process, or a child, is the "tree"; nobody changes its files meanwhile.
class FileTableTest : public testing::Test {
 protected:
  void add(FileTable& table, uint32_t files_id, std::vector<DescriptorNumber> numbers, pid_t pid = ::getpid()) {
    const Fd pidfd(pidfd_open(pid));
    ASSERT_TRUE(pidfd);
    table.add_process(files_id, pid, pidfd.get(), "test", numbers);
  }
  void write(FileTable& table) {
    table.conclude(store_);
    table.encode(store_);
    test::commit(store_);
  }
  Fd open(const std::string& name, int flags = O_RDWR) {
    return Fd(::open((dir_.path() + "/" + name).c_str(), flags | O_CLOEXEC));
  }

  test::Directory dir_;
  DumpOptions dump_options_;
  RestoreOptions restore_options_;
  ImageStore store_ = ImageStore::in_memory();
};

TEST_F(FileTableTest, SharedDescriptionsAreOneFile) {
  dir_.put("a", "aaaa");
  const Fd first = open("a"), second = open("a");
  const Fd twin(::fcntl(first.get(), F_DUPFD_CLOEXEC, 0));
  FileTable table(dump_options_);
  add(table, 1, {{first.get()}, {second.get(), true}, {twin.get()}});
  EXPECT_EQ(table.files(), 2u);
  write(table);

  const uint32_t ids[] = {1};
  RestoredFiles files(store_, restore_options_, ids);
  const auto& slots = files.descriptors(1);
  ASSERT_EQ(slots.size(), 3u);
  const auto id_at = [&](int number) { return std::ranges::find(slots, number, &DescriptorSlot::number)->id; };
  EXPECT_EQ(id_at(first.get()), id_at(twin.get()));
  EXPECT_NE(id_at(first.get()), id_at(second.get()));
  EXPECT_TRUE(std::ranges::find(slots, second.get(), &DescriptorSlot::number)->cloexec);
  files.plan();
  files.create();
  files.finish();
  EXPECT_EQ(test::link_of(files.fd_of(id_at(first.get()))), dir_.path() + "/a");
}

TEST_F(FileTableTest, LongTablesComeBackInOrder) {
  constexpr int kFiles = 600;
  std::vector<Fd> fds;
  std::vector<DescriptorNumber> numbers;
  for (int i = 0; i < kFiles; ++i) {
    const std::string name = fmt::format("file{}", i);
    dir_.put(name, name);
    fds.push_back(i % 7 == 6 ? Fd(::eventfd(static_cast<unsigned>(i), EFD_CLOEXEC)) : open(name));
    ASSERT_TRUE(fds.back());
    numbers.push_back({fds.back().get(), i % 5 == 0});
  }
  FileTable table(dump_options_);
  table.expect(numbers.size());
  add(table, 1, numbers);
  EXPECT_EQ(table.files(), size_t{kFiles});
  write(table);
  fds.clear();

  const uint32_t ids[] = {1};
  RestoredFiles files(store_, restore_options_, ids);
  files.plan();
  files.create();
  files.finish();
  const auto& slots = files.descriptors(1);
  ASSERT_EQ(slots.size(), size_t{kFiles});
  for (size_t i = 0; i < slots.size(); ++i) {
    EXPECT_EQ(slots[i].number, numbers[i].number);
    EXPECT_EQ(slots[i].cloexec, i % 5 == 0);
    const std::string link = test::link_of(files.fd_of(slots[i].id));
    EXPECT_EQ(link, i % 7 == 6 ? "anon_inode:[eventfd]" : fmt::format("{}/file{}", dir_.path(), i));
  }
}

TEST_F(FileTableTest, ManyOpensOfOneFileAreToldApart) {
  dir_.put("a", "");
  std::vector<Fd> fds;
  std::vector<DescriptorNumber> numbers;
  for (int i = 0; i < 100; ++i) {
    fds.push_back(i % 3 == 2 ? Fd(::fcntl(fds[static_cast<size_t>(i) - 2].get(), F_DUPFD_CLOEXEC, 0)) : open("a"));
    numbers.push_back({fds.back().get()});
  }
  FileTable table(dump_options_);
  add(table, 1, numbers);
  EXPECT_EQ(table.files(), 67u);
}

TEST_F(FileTableTest, AChildSharesWhatItInherited) {
  dir_.put("a", "0123456789");
  const Fd shared = open("a");
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  Fd reader(ends[0]), writer(ends[1]);
  ASSERT_EQ(::write(writer.get(), "queued", 6), 6);
  ASSERT_EQ(::lseek(shared.get(), 3, SEEK_SET), 3);
  const pid_t child = ::fork();
  if (child == 0) {
    ::pause();
    ::_exit(0);
  }
  FileTable table(dump_options_);
  add(table, 1, {{shared.get()}, {reader.get()}});
  add(table, 2, {{shared.get()}, {writer.get()}}, child);
  EXPECT_EQ(table.files(), 3u);
  write(table);
  ::kill(child, SIGKILL);
  int status;
  ASSERT_EQ(::waitpid(child, &status, 0), child);

  const uint32_t ids[] = {1, 2};
  RestoredFiles files(store_, restore_options_, ids);
  files.plan();
  files.create();
  files.finish();
  const int file = files.fd_of(files.descriptors(1)[0].id);
  EXPECT_EQ(file, files.fd_of(files.descriptors(2)[0].id));
  EXPECT_EQ(::lseek(file, 0, SEEK_CUR), 3);
  char text[16] = {};
  EXPECT_EQ(::read(files.fd_of(files.descriptors(1)[1].id), text, sizeof text), 6);
  EXPECT_STREQ(text, "queued");
  EXPECT_EQ(::write(files.fd_of(files.descriptors(2)[1].id), "x", 1), 1);
}

class EpollTest : public FileTableTest {
 protected:
  // Under a number of its own that is closed again, if `closed`.
  void watch(int fd, uint64_t data, bool closed = false) {
    const int number = closed ? ::fcntl(fd, F_DUPFD_CLOEXEC, 600) : fd;
    epoll_event event{.events = EPOLLIN | EPOLLRDHUP, .data = {.u64 = data}};
    ASSERT_EQ(::epoll_ctl(poll_.get(), EPOLL_CTL_ADD, number, &event), 0);
    if (closed) ::close(number);
    wanted_.insert(fmt::format("{} {}", number, data));
  }
  std::set<std::string> watched(int fd) {
    std::set<std::string> out;
    const std::string info = own_fdinfo(fd);
    for (size_t at = info.find("tfd:"); at != std::string::npos; at = info.find("tfd:", at + 1)) {
      int number = -1;
      unsigned events = 0;
      unsigned long data = 0;
      EXPECT_EQ(std::sscanf(info.c_str() + at, "tfd: %d events: %x data: %lx", &number, &events, &data), 3);
      EXPECT_EQ(events, unsigned{EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP});
      out.insert(fmt::format("{} {}", number, data));
    }
    return out;
  }
  std::vector<DescriptorNumber> numbers() {
    std::vector<DescriptorNumber> out{{poll_.get()}, {event_.get()}, {other_.get()}};
    std::ranges::sort(out, {}, &DescriptorNumber::number);
    return out;
  }
  std::set<std::string> carry_over(FileTable& table, bool with_extension) {
    table.conclude(store_);
    table.encode(store_);
    pb::extension_head head;
    table.encode_extension(head);
    test::commit(store_);
    const uint32_t ids[] = {1};
    RestoredFiles files(store_, restore_options_, ids, with_extension ? &head : nullptr);
    files.plan();
    files.create();
    files.finish();
    for (const DescriptorSlot& slot : files.descriptors(1))
      if (slot.number == poll_.get()) return watched(files.fd_of(slot.id));
    return {};
  }

  Fd event_{::eventfd(0, EFD_CLOEXEC)}, other_{::eventfd(0, EFD_CLOEXEC)}, poll_{::epoll_create1(EPOLL_CLOEXEC)};
  std::set<std::string> wanted_;
};

TEST_F(EpollTest, TargetsAreFoundByWhatTheyAre) {
  watch(event_.get(), 7);
  watch(event_.get(), 8, true);
  watch(other_.get(), 9, true);
  FileTable table(dump_options_);
  add(table, 1, numbers());
  EXPECT_EQ(carry_over(table, true), wanted_);
}

TEST_F(EpollTest, WithoutAnExtensionTheNumbersTell) {
  watch(event_.get(), 7);
  watch(other_.get(), UINT64_MAX);
  FileTable table(dump_options_);
  add(table, 1, numbers());
  EXPECT_EQ(carry_over(table, false), wanted_);
}

TEST_F(EpollTest, ATargetThatIsGoneIsRefused) {
  {
    const Fd outside(::eventfd(0, EFD_CLOEXEC));
    watch(outside.get(), 1);
    // Another descriptor keeps the registration alive, and the dump does not see it.
    const Fd kept(::fcntl(outside.get(), F_DUPFD_CLOEXEC, 700));
    FileTable table(dump_options_);
    add(table, 1, numbers());
    const Error error = error_of([&] { table.conclude(store_); });
    EXPECT_EQ(error.reason(), Reason::UNSUPPORTED_FILE);
    EXPECT_NE(error.what_failed().find(fmt::format("number {}", outside.get())), std::string::npos) << error.report();
  }
}

TEST_F(FileTableTest, UnknownFilesAreNamed) {
  constexpr int kUserModeOnly = 1;  // nobody needs a privilege for that (userfaultfd(2))
  const Fd unknown(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | kUserModeOnly)));
  if (!unknown) GTEST_SKIP() << "userfaultfd";
  FileTable table(dump_options_);
  const Error error = error_of([&] { add(table, 1, {{unknown.get()}}); });
  EXPECT_EQ(error.reason(), Reason::UNSUPPORTED_FILE);
  EXPECT_NE(error.what_failed().find("userfaultfd"), std::string::npos);
  EXPECT_EQ(error.object(),
            fmt::format("fd {} (anon_inode:[userfaultfd]) of pid {} (test)", unknown.get(), ::getpid()));
  EXPECT_EQ(error_of([&] { add(table, 2, {{1 << 20}}); }).reason(), Reason::TASK_VANISHED);
}

TEST_F(FileTableTest, PathFilesAreSharedAndOpenedOnDemand) {
  const std::string path = dir_.put("program", "text");
  const Fd fd = open("program", O_PATH);
  PathFile file{.fd = fd.get(), .link = path, .flags = O_RDONLY, .who = "the executable of pid 42 (x)"};
  ASSERT_EQ(::fstat(fd.get(), &file.st), 0);
  FileTable table(dump_options_);
  const uint32_t id = table.add_path_file(file);
  EXPECT_EQ(table.add_path_file(file), id);
  file.flags = O_RDWR;
  EXPECT_NE(table.add_path_file(file), id);
  write(table);

  RestoredFiles files(store_, restore_options_, {});
  files.plan();
  files.create();
  EXPECT_EQ(files.path_file(id).path, path);
  EXPECT_TRUE(files.open_path(id));
  EXPECT_EQ(error_of([&] { files.fd_of(id); }).reason(), Reason::INTERNAL);
  EXPECT_EQ(error_of([&] { files.path_file(99); }).reason(), Reason::IMAGE_CORRUPT);
  dir_.put("program", "changed");
  EXPECT_EQ(error_of([&] { files.plan(); }).reason(), Reason::FILE_CHANGED);
}

TEST_F(FileTableTest, SignalDrivenFilesAreLeftToTheirTask) {
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const Fd reader(ends[0]), writer(ends[1]);
  ASSERT_EQ(::fcntl(reader.get(), F_SETFL, O_ASYNC | O_NONBLOCK), 0);
  FileTable table(dump_options_);
  add(table, 1, {{reader.get()}, {writer.get()}});
  write(table);
  const uint32_t ids[] = {1};
  RestoredFiles files(store_, restore_options_, ids);
  files.plan();
  files.create();
  const auto slots = files.async_slots(1);
  ASSERT_EQ(slots.size(), 1u);
  EXPECT_EQ(slots[0].number, reader.get());
  EXPECT_EQ(slots[0].flags, static_cast<uint32_t>(O_ASYNC | O_NONBLOCK));
  EXPECT_EQ(::fcntl(files.fd_of(files.descriptors(1)[0].id), F_GETFL), O_NONBLOCK);
}

class CorruptTables : public FileTableTest {
 protected:
  void file(uint32_t id, pb::fd_types type = pb::REG) {
    pb::file_entry entry;
    RegularFile::encode({.id = id, .path = "/dev/null"}, entry);
    entry.set_type(type);
    store_.writer(ImageKind::FILES).write(entry);
  }
  void slot(uint32_t fd, uint32_t id, pb::fd_types type = pb::REG) {
    pb::fdinfo_entry entry;
    entry.set_id(id);
    entry.set_flags(0);
    entry.set_type(type);
    entry.set_fd(fd);
    store_.writer(ImageKind::FDINFO, 1).write(entry);
  }
  Reason reason() {
    test::commit(store_);
    const uint32_t ids[] = {1};
    return error_of([&] { RestoredFiles(store_, restore_options_, ids); }).reason();
  }
};

TEST_F(CorruptTables, DanglingId) {
  file(1);
  slot(0, 2);
  EXPECT_EQ(reason(), Reason::IMAGE_CORRUPT);
}
TEST_F(CorruptTables, TwoFilesOfOneId) {
  file(1);
  file(1);
  EXPECT_EQ(reason(), Reason::IMAGE_CORRUPT);
}
TEST_F(CorruptTables, TwoSlotsOfOneNumber) {
  file(1);
  slot(5, 1);
  slot(5, 1);
  EXPECT_EQ(reason(), Reason::IMAGE_CORRUPT);
}
TEST_F(CorruptTables, WrongType) {
  file(1);
  slot(5, 1, pb::PIPE);
  EXPECT_EQ(reason(), Reason::IMAGE_CORRUPT);
}
TEST_F(CorruptTables, ImpossibleNumber) {
  file(1);
  slot(0x80000000u, 1);
  EXPECT_EQ(reason(), Reason::IMAGE_CORRUPT);
}
TEST_F(CorruptTables, TypeWithoutKind) {
  file(1, pb::BPFMAP);
  EXPECT_EQ(reason(), Reason::IMAGE_UNSUPPORTED);
}

}  // namespace
}  // namespace stasis
