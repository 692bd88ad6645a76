// fdinfo, locks, mounts, control groups and the small files; and ProcDir itself.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>

#include "base/error.h"
#include "kernel/proc.h"

namespace stasis {
namespace {

// Every prefix of a good text is parsed: it must give a result or an Error, never anything else.
template <class F>
void try_all_prefixes(std::string_view text, F&& parse) {
  for (size_t n = 0; n <= text.size(); ++n) {
    try {
      parse(text.substr(0, n));
    } catch (const Error& error) {
      EXPECT_EQ(error.reason(), Reason::PROC_TEXT);
    }
  }
}

constexpr std::string_view kEpollText =
    "pos:\t0\nflags:\t02000002\nmnt_id:\t15\nino:\t2059\n"
    "lock:\t1: FLOCK  ADVISORY  WRITE 359 00:13:11691 0 EOF\n"
    "tfd:        5 events:       19 data:                5  pos:0 ino:80b sdev:e\n"
    "tfd:        7 events: 80000019 data: ffffffffffffffff  pos:0 ino:80b sdev:e\n";

TEST(ParseFdinfo, CommonFieldsLocksAndOwnLines) {
  const FdInfo info = parse_fdinfo(kEpollText);
  EXPECT_EQ(info.pos, 0u);
  EXPECT_EQ(info.flags, 02000002u);
  EXPECT_EQ(info.mnt_id, 15);
  EXPECT_EQ(info.inode, 2059u);
  ASSERT_EQ(info.locks.size(), 1u);
  EXPECT_EQ(parse_lock_line(info.locks[0]).inode, 11691u);
  int lines = 0;
  info.each_line("tfd:", [&](std::string_view line) { lines += line.ends_with("sdev:e") ? 1 : 0; });
  EXPECT_EQ(lines, 2);
  EXPECT_FALSE(info.value("eventfd-count").has_value());
}

TEST(ParseFdinfo, ValuesByKey) {
  const FdInfo info = parse_fdinfo(
      "pos:\t-1\nflags:\t0100002\nmnt_id:\t15\neventfd-count:               1f\neventfd-id: 3\neventfd-semaphore: 0\n"
      "it_value: (12, 345)\n");
  EXPECT_EQ(info.pos, ~0ull);
  EXPECT_FALSE(info.inode.has_value());
  EXPECT_EQ(info.number("eventfd-count", 16), 0x1fu);
  EXPECT_EQ(info.number("eventfd-id"), 3u);
  EXPECT_EQ(info.value("it_value"), "(12, 345)");
  EXPECT_FALSE(info.number("it_value").has_value());
  EXPECT_FALSE(info.number("eventfd").has_value());
}

TEST(ParseFdinfo, BadTextIsAnErrorAndNeverACrash) {
  EXPECT_THROW(parse_fdinfo(""), Error);
  EXPECT_THROW(parse_fdinfo("pos:\tx\nflags:\t0\n"), Error);
  EXPECT_THROW(parse_fdinfo("pos:\t0\nflags:\t9\n"), Error);
  try_all_prefixes(kEpollText, [](std::string_view t) { parse_fdinfo(t); });
}

TEST(ParseLocks, EveryKind) {
  constexpr std::string_view text =
      "1: POSIX  ADVISORY  WRITE 1234 08:01:5678 10 20\n"
      "1: -> POSIX  ADVISORY  READ 1235 08:01:5678 0 EOF\n"
      "2: OFDLCK ADVISORY  READ -1 fd:1a:99 0 EOF\n"
      "3: LEASE  BREAKING  READ 77 00:2a:3 0 EOF\n"
      "4: FLOCK  ADVISORY  WRITE 0 <none>:0 0 EOF\n";
  const auto locks = parse_locks(text);
  ASSERT_EQ(locks.size(), 5u);
  EXPECT_EQ(locks[0].kind, FileLock::Kind::posix);
  EXPECT_EQ(locks[0].type, FileLock::Type::write);
  EXPECT_EQ(locks[0].pid, 1234);
  EXPECT_EQ(locks[0].dev_major, 8u);
  EXPECT_EQ(locks[0].inode, 5678u);
  EXPECT_EQ(locks[0].start, 10u);
  EXPECT_EQ(locks[0].end, 20u);
  EXPECT_TRUE(locks[1].waiting);
  EXPECT_EQ(locks[1].id, 1u);
  EXPECT_EQ(locks[1].end, FileLock::kToEnd);
  EXPECT_EQ(locks[2].kind, FileLock::Kind::ofd);
  EXPECT_EQ(locks[2].pid, -1);
  EXPECT_EQ(locks[2].dev_minor, 0x1au);
  EXPECT_EQ(locks[3].mode, "BREAKING");
  EXPECT_EQ(locks[4].inode, 0u);
  try_all_prefixes(text, [](std::string_view t) { parse_locks(t); });
}

TEST(ParseMountinfo, OptionalFieldsEscapesAndEmptySource) {
  constexpr std::string_view text =
      "36 35 98:0 /mnt1 /mnt\\0402\\134 rw,noatime shared:7 master:1 propagate_from:2 future:9 - ext3 /dev/root rw\n"
      "40 36 0:31 / /x\\012y ro unbindable - fuse.sshfs user@host:/a\\040b rw,user_id=0\n"
      "41 36 0:32 / /tmp rw - tmpfs  rw,size=4k\n";
  const auto mounts = parse_mountinfo(text);
  ASSERT_EQ(mounts.size(), 3u);
  EXPECT_EQ(mounts[0].id, 36);
  EXPECT_EQ(mounts[0].parent_id, 35);
  EXPECT_EQ(mounts[0].dev_major, 98u);
  EXPECT_EQ(mounts[0].root, "/mnt1");
  EXPECT_EQ(mounts[0].mount_point, "/mnt 2\\");
  EXPECT_EQ(mounts[0].options, "rw,noatime");
  EXPECT_EQ(mounts[0].shared, 7);
  EXPECT_EQ(mounts[0].master, 1);
  EXPECT_EQ(mounts[0].propagate_from, 2);
  EXPECT_FALSE(mounts[0].unbindable);
  EXPECT_EQ(mounts[1].mount_point, "/x\ny");
  EXPECT_TRUE(mounts[1].unbindable);
  EXPECT_EQ(mounts[1].fs_type, "fuse.sshfs");
  EXPECT_EQ(mounts[1].source, "user@host:/a b");
  EXPECT_EQ(mounts[2].source, "");
  EXPECT_EQ(mounts[2].super_options, "rw,size=4k");
  EXPECT_THROW(parse_mountinfo_line("36 35 98:0 / /mnt rw shared:1"), Error);
  try_all_prefixes(text, [](std::string_view t) { parse_mountinfo(t); });
}

TEST(UnescapeOctal, OnlyCompleteEscapes) {
  EXPECT_EQ(unescape_octal("a\\040b\\134"), "a b\\");
  EXPECT_EQ(unescape_octal("\\04"), "\\04");
  EXPECT_EQ(unescape_octal("\\999\\400"), "\\999\\400");
  EXPECT_EQ(unescape_octal("\\377"), "\377");
}

TEST(ParseCgroup, BothTrees) {
  constexpr std::string_view text = "4:cpu,cpuacct:/a:b\n1:name=systemd:/s\n0::/gone (deleted)\n";
  const auto groups = parse_cgroup(text);
  ASSERT_EQ(groups.size(), 3u);
  EXPECT_EQ(groups[0].controllers, "cpu,cpuacct");
  EXPECT_EQ(groups[0].path, "/a:b");
  EXPECT_EQ(groups[2].hierarchy, 0);
  EXPECT_EQ(groups[2].path, "/gone");
  EXPECT_TRUE(groups[2].deleted);
  try_all_prefixes(text, [](std::string_view t) { parse_cgroup(t); });
}

TEST(ParseTimers, TwoTimers) {
  constexpr std::string_view text =
      "ID: 1\nsignal: 10/0000559e3f2a02c0\nnotify: thread/tid.42\nClockID: -6\n"
      "ID: 0\nsignal: 14/0\nnotify: none/pid.7\nClockID: 1\n";
  const auto timers = parse_timers(text);
  ASSERT_EQ(timers.size(), 2u);
  EXPECT_EQ(timers[0].id, 1);
  EXPECT_EQ(timers[0].signo, 10);
  EXPECT_EQ(timers[0].sigval, 0x559e3f2a02c0u);
  EXPECT_EQ(timers[0].notify, PosixTimer::Notify::thread);
  EXPECT_TRUE(timers[0].thread_directed);
  EXPECT_EQ(timers[0].target, 42);
  EXPECT_EQ(timers[0].clock_id, -6);
  EXPECT_EQ(timers[1].notify, PosixTimer::Notify::none);
  EXPECT_FALSE(timers[1].thread_directed);
  EXPECT_TRUE(parse_timers("").empty());
  EXPECT_THROW(parse_timers("signal: 1/0\n"), Error);
  EXPECT_THROW(parse_timers("ID: 1\nnotify: owl/pid.1\n"), Error);
  try_all_prefixes(text, [](std::string_view t) { parse_timers(t); });
}

TEST(SmallFiles, Values) {
  EXPECT_EQ(parse_children("12 345 6 "), (std::vector<pid_t>{12, 345, 6}));
  EXPECT_TRUE(parse_children("").empty());
  EXPECT_THROW(parse_children("1 x"), Error);
  const TimeNsOffsets offsets = parse_timens_offsets("monotonic          -5         7\nboottime          86400 0\n");
  EXPECT_EQ(offsets.monotonic.seconds, -5);
  EXPECT_EQ(offsets.monotonic.nanoseconds, 7);
  EXPECT_EQ(offsets.boottime.seconds, 86400);
  EXPECT_THROW(parse_timens_offsets("monotonic 1 2\n"), Error);
  const auto map = parse_id_map("         0          0 4294967295\n         7       1000          1\n");
  ASSERT_EQ(map.size(), 2u);
  EXPECT_EQ(map[0].count, 4294967295u);
  EXPECT_EQ(map[1].outside, 1000u);
  EXPECT_THROW(parse_id_map("0 0\n"), Error);
  EXPECT_EQ(parse_loginuid("4294967295"), 4294967295u);
  EXPECT_EQ(parse_oom_score_adj("-1000\n"), -1000);
  EXPECT_EQ(parse_coredump_filter("00000033\n"), 0x33u);
  EXPECT_EQ(parse_autogroup_nice("/autogroup-42 nice -5\n"), -5);
  EXPECT_FALSE(parse_autogroup_nice("").has_value());
  EXPECT_THROW(parse_autogroup_nice("/autogroup-42 5\n"), Error);
  EXPECT_THROW(parse_oom_score_adj("\n"), Error);
  EXPECT_THROW(parse_oom_score_adj("12 13\n"), Error);
}

TEST(ParseAuxv, StopsAtTheEndMarkAndAtACutEntry) {
  const uint64_t words[] = {6, 4096, 25, 77, 0, 0, 9, 9};
  const auto all = std::as_bytes(std::span(words));
  const auto entries = parse_auxv(all);
  ASSERT_EQ(entries.size(), 2u);
  EXPECT_EQ(entries[1].type, 25u);
  EXPECT_EQ(entries[1].value, 77u);
  EXPECT_EQ(parse_auxv(all.first(23)).size(), 1u);
  EXPECT_TRUE(parse_auxv({}).empty());
}

TEST(LiveProc, SmallFilesOfThisProcess) {
  ProcDir self(getpid());
  const auto auxv = parse_auxv(self.read_bytes("auxv"));
  const auto page = std::ranges::find(auxv, uint64_t{AT_PAGESZ}, &AuxEntry::type);
  ASSERT_NE(page, auxv.end());
  EXPECT_EQ(page->value, getauxval(AT_PAGESZ));
  EXPECT_FALSE(parse_mountinfo(self.read("mountinfo")).empty());
  EXPECT_NO_THROW(parse_cgroup(self.read("cgroup")));
  EXPECT_FALSE(parse_id_map(self.read("uid_map")).empty());
  EXPECT_EQ(self.readlink("cwd").has_value(), true);
  EXPECT_FALSE(self.readlink("fd/1000000").has_value());
  EXPECT_FALSE(self.try_read("no_such_file").has_value());
  EXPECT_THROW(self.read("no_such_file"), Error);
}

TEST(LiveProc, EventfdAndFlockInFdinfo) {
  ProcDir self(getpid());
  const Fd event(eventfd(0x2a, EFD_CLOEXEC));
  const FdInfo info = parse_fdinfo(self.read(("fdinfo/" + std::to_string(event.get())).c_str()));
  EXPECT_EQ(info.number("eventfd-count", 16), 0x2au);
  EXPECT_NE(info.flags & O_CLOEXEC, 0u);

  const Fd file(memfd_create("locked", MFD_CLOEXEC));
  ASSERT_EQ(flock(file.get(), LOCK_EX), 0);
  const FdInfo locked = parse_fdinfo(self.read(("fdinfo/" + std::to_string(file.get())).c_str()));
  ASSERT_EQ(locked.locks.size(), 1u);
  const FileLock lock = parse_lock_line(locked.locks[0]);
  struct stat st;
  ASSERT_EQ(fstat(file.get(), &st), 0);
  EXPECT_EQ(lock.kind, FileLock::Kind::flock);
  EXPECT_EQ(lock.type, FileLock::Type::write);
  EXPECT_EQ(lock.inode, st.st_ino);
  EXPECT_EQ(lock.dev_minor, minor(st.st_dev));
}

TEST(LiveProc, TimerIsListed) {
  sigevent event{};
  event.sigev_notify = SIGEV_NONE;
  event.sigev_value.sival_int = 0x1234;
  timer_t timer{};
  ASSERT_EQ(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
  ProcDir self(getpid());
  const auto text = self.try_read("timers");
  timer_delete(timer);
  if (!text) GTEST_SKIP() << "kernel without CHECKPOINT_RESTORE";
  const auto timers = parse_timers(*text);
  ASSERT_EQ(timers.size(), 1u);
  EXPECT_EQ(timers[0].notify, PosixTimer::Notify::none);
  EXPECT_EQ(timers[0].sigval & 0xffff, 0x1234u);
  EXPECT_EQ(timers[0].clock_id, CLOCK_MONOTONIC);
  EXPECT_EQ(timers[0].target, getpid());
}

TEST(ProcDirTest, ListsAreSortedAndHoldThisProcess) {
  ProcDir self(getpid());
  EXPECT_EQ(self.threads(), std::vector<pid_t>{getpid()});
  const Fd high(fcntl(self.fd(), F_DUPFD_CLOEXEC, 900));
  const auto fds = self.fds();
  EXPECT_TRUE(std::ranges::is_sorted(fds));
  EXPECT_TRUE(std::ranges::binary_search(fds, high.get()));
}

TEST(SystemFile, IsReadWholeOrNamed) {
  const std::string text = read_system_file("stat");
  EXPECT_TRUE(text.starts_with("cpu "));
  EXPECT_NE(text.find("\nsoftirq "), std::string::npos);  // the last line
  EXPECT_EQ(text.back(), '\n');
  try {
    read_system_file("no/such/file");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.object(), "/proc/no/such/file");
    EXPECT_EQ(e.error_number(), ENOENT);
  }
}

TEST(ProcDirTest, MissingTasksAreToldApart) {
  try {
    ProcDir nobody(0x3ffffff);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.reason(), Reason::NO_SUCH_TASK);
    EXPECT_EQ(error.object(), "pid 67108863");
  }
  EXPECT_THROW(ProcDir::of_thread(getpid(), 0x3ffffff), Error);

  const pid_t child = fork();
  if (child == 0) _exit(3);
  siginfo_t info;
  ASSERT_EQ(waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT), 0);
  ProcDir dir(child);
  const ProcStat zombie = parse_stat(dir.read("stat"));
  EXPECT_TRUE(zombie.zombie());
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  const auto expect_vanished = [](auto&& action) {
    try {
      action();
      FAIL();
    } catch (const Error& error) {
      EXPECT_EQ(error.reason(), Reason::TASK_VANISHED) << error.what();
    }
  };
  expect_vanished([&] { dir.read("stat"); });
  expect_vanished([&] { dir.try_read("timers"); });
  expect_vanished([&] { dir.readlink("exe"); });
  expect_vanished([&] { dir.threads(); });
  expect_vanished([&] { dir.fds(); });
  expect_vanished([&] { dir.thread(child); });
}

TEST(ProcDirTest, BigFilesGrowTheBuffer) {
  // Alternating protections keep the kernel from joining neighbours: 600 areas are 30 KiB of maps.
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t bytes = 600 * page;
  char* area = static_cast<char*>(mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(area, MAP_FAILED);
  for (size_t at = 0; at < bytes; at += 2 * page) ASSERT_EQ(mprotect(area + at, page, PROT_READ), 0);
  ProcDir self(getpid());
  const std::string_view text = self.read("maps");
  EXPECT_GT(text.size(), 25000u);
  EXPECT_GE(parse_maps(text).size(), 600u);
  munmap(area, bytes);
}

TEST(ProcDirTest, WritesAValue) {
  ProcDir self(getpid());
  const uint32_t before = parse_coredump_filter(self.read("coredump_filter"));
  self.write("coredump_filter", "0x1");
  EXPECT_EQ(parse_coredump_filter(self.read("coredump_filter")), 1u);
  self.write("coredump_filter", std::to_string(before));
  EXPECT_THROW(self.write("coredump_filter", "owl"), Error);
}

}  // namespace
}  // namespace stasis
