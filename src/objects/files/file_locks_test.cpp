#include "objects/files/file_locks.h"

#include <sys/file.h>
#include <sys/wait.h>

#include "objects/files/test_support.h"

namespace stasis {
namespace {

using Kind = SavedLock::Kind;
using Type = SavedLock::Type;

SavedLock saved(std::string_view line) {
  return saved_lock(parse_lock_line(line), 42, 7, "fd 7 of pid 42");
}

TEST(FileLocks, LinesOfFdinfoBecomeLocksOfTheFormat) {
  EXPECT_EQ(saved("1: POSIX  ADVISORY  WRITE 42 08:01:5 10 29"),
            (SavedLock{.kind = Kind::posix, .type = Type::write, .pid = 42, .number = 7, .start = 10, .bytes = 20}));
  EXPECT_EQ(saved("1: OFDLCK ADVISORY  READ -1 08:01:5 0 EOF"),
            (SavedLock{.kind = Kind::ofd, .type = Type::read, .pid = 42, .number = 7}));
  EXPECT_EQ(saved("1: FLOCK  ADVISORY  WRITE 42 08:01:5 0 EOF"),
            (SavedLock{.kind = Kind::flock, .type = Type::write, .pid = 42, .number = 7}));
  EXPECT_EQ(saved("1: LEASE  BREAKING  UNLCK 42 08:01:5 0 EOF"),
            (SavedLock{.kind = Kind::lease, .type = Type::none, .breaking = true, .pid = 42, .number = 7}));
  EXPECT_EQ(error_of([] { saved("1: DELEG  ACTIVE    READ 42 08:01:5 0 EOF"); }).reason(), Reason::FILE_LOCKS_HELD);
}

TEST(FileLocks, NumbersAreThoseOfTheFormat) {
  const pb::file_lock_entry entry = encode_lock(saved("1: LEASE  BREAKING  READ 42 08:01:5 0 EOF"));
  EXPECT_EQ(entry.flag(), 8u);
  EXPECT_EQ(entry.type(), 4u);
  const pb::file_lock_entry record = encode_lock(saved("1: POSIX  ADVISORY  WRITE 42 08:01:5 10 29"));
  EXPECT_EQ(record.flag(), 1u);
  EXPECT_EQ(record.type(), 1u);
  EXPECT_EQ(record.start(), 10);
  EXPECT_EQ(record.len(), 20);
}

TEST(FileLocks, ThroughTheImage) {
  for (const char* line : {"1: POSIX  ADVISORY  WRITE 42 08:01:5 10 29", "1: OFDLCK ADVISORY  READ -1 08:01:5 3 EOF",
                           "1: FLOCK  ADVISORY  READ 42 08:01:5 0 EOF", "1: LEASE  ACTIVE    WRITE 42 08:01:5 0 EOF",
                           "1: LEASE  BREAKING  READ 42 08:01:5 0 EOF", "1: LEASE  BREAKING  UNLCK 42 08:01:5 0 EOF"})
    EXPECT_EQ(decode_lock(encode_lock(saved(line))), saved(line)) << line;
}

TEST(FileLocks, ImpossibleOnesAreCorrupt) {
  const pb::file_lock_entry good = encode_lock(saved("1: POSIX  ADVISORY  WRITE 42 08:01:5 10 29"));
  const auto broken = [&](auto change) {
    pb::file_lock_entry entry = good;
    change(entry);
    return error_of([&] { decode_lock(entry); }).reason();
  };
  EXPECT_EQ(broken([](auto& e) { e.set_flag(3); }), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(broken([](auto& e) { e.set_type(2); }), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(broken([](auto& e) { e.set_type(4); }), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(broken([](auto& e) { e.set_fd(-1); }), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(broken([](auto& e) { e.set_start(-1); }), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(broken([](auto& e) { e.set_len(INT64_MAX); }), Reason::IMAGE_CORRUPT);
  EXPECT_EQ(broken([](auto& e) { e.set_flag(8), e.set_type(5); }), Reason::IMAGE_CORRUPT);
}

TEST(FileLocks, WhatSeveralDescriptorsShowIsSavedOnce) {
  const test::Directory dir;
  const Fd fd(::open(dir.put("file", "x").c_str(), O_RDWR | O_CLOEXEC));
  const DumpOptions options;
  test::LooseDump files(options);
  DumpedLocks locks;
  FileView view = test::view_of(fd.get());
  const FileLock flocked = parse_lock_line("1: FLOCK  ADVISORY  WRITE 42 08:01:5 0 EOF");
  const FileLock record = parse_lock_line("2: POSIX  ADVISORY  WRITE 42 08:01:5 0 EOF");
  view.pid = 41;
  locks.add(flocked, 1, 5, view, files);
  locks.add(record, 1, 5, view, files);
  view.number = 30;
  locks.add(record, 1, 5, view, files);
  view.pid = 42;  // who made it
  locks.add(flocked, 2, 5, view, files);
  locks.add(record, 2, 5, view, files);  // of another table: a lock of its own
  ImageStore store = ImageStore::in_memory();
  locks.encode(store);
  test::commit(store);
  ImageReader reader = store.require(ImageKind::FILE_LOCKS);
  pb::file_lock_entry entry;
  std::vector<std::pair<int, int>> owners;
  while (reader.next(entry)) owners.emplace_back(entry.pid(), entry.fd());
  EXPECT_EQ(owners, (std::vector<std::pair<int, int>>{{42, 30}, {41, fd.get()}, {42, 30}}));
}

TEST(FileLocks, ALeaseOnAMappedFileIsRefused) {
  const test::Directory dir;
  const Fd fd(::open(dir.put("file", "x").c_str(), O_RDWR | O_CLOEXEC));
  const DumpOptions options;
  test::LooseDump files(options);
  DumpedLocks locks;
  const FileView view = test::view_of(fd.get());
  locks.add(parse_lock_line("1: LEASE  ACTIVE    READ 42 08:01:5 0 EOF"), 1, 5, view, files);
  EXPECT_NO_THROW(locks.check_leases([](dev_t, ino_t) { return true; }));
  locks.add(parse_lock_line("1: LEASE  ACTIVE    WRITE 42 08:01:5 0 EOF"), 1, 6, view, files);
  EXPECT_NO_THROW(locks.check_leases([](dev_t, ino_t) { return false; }));
  EXPECT_EQ(error_of([&] {
              locks.check_leases([&](dev_t dev, ino_t ino) { return dev == view.st.st_dev && ino == view.st.st_ino; });
            }).reason(),
            Reason::FILE_LOCKS_HELD);
}

// Of others, and of this process; probing leaves none.
TEST(FileLocks, ALockInTheWayIsNamed) {
  const test::Directory dir;
  const std::string path = dir.put("file", "x");
  const Fd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC)), other(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  SyscallBatch batch;
  const auto take = [&](SavedLock lock) { take_lock(lock, fd.get(), batch); };
  for (const Kind kind : {Kind::posix, Kind::ofd, Kind::flock})
    EXPECT_NO_THROW(take({.kind = kind, .type = Type::write}));
  EXPECT_EQ(batch.calls(), 3u);
  struct flock range {};
  range.l_type = F_WRLCK;
  ASSERT_EQ(::fcntl(other.get(), F_OFD_SETLK, &range), 0);
  ASSERT_EQ(::flock(other.get(), LOCK_SH), 0);
  for (const Kind kind : {Kind::posix, Kind::ofd, Kind::flock})
    EXPECT_EQ(error_of([&] { take({.kind = kind, .type = Type::write}); }).reason(), Reason::FILE_LOCK_TAKEN);
  EXPECT_NO_THROW(take({.kind = Kind::flock, .type = Type::read}));
  EXPECT_EQ(error_of([&] { take({.kind = Kind::lease, .type = Type::write}); }).reason(), Reason::FILE_LOCK_TAKEN);
  ASSERT_EQ(::flock(other.get(), LOCK_UN), 0);
  EXPECT_EQ(::flock(other.get(), LOCK_EX | LOCK_NB), 0);
}

}  // namespace
}  // namespace stasis
