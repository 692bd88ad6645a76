#include "objects/files/held_locks.h"

#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include <string>

namespace stasis {
namespace {

// Beyond as many files one look at all locks is cheaper.
constexpr size_t kAskEach = 1500;

// /proc/locks leaves out locks whose owner is not visible in the reader's pid namespace, among them flock(2) locks that
// outlived the process that took them (fs/locks.c, locks_show). Only the initial namespace sees all; its inode number
// is fixed (linux/proc_ns.h, PROC_PID_INIT_INO).
bool sees_all_locks() {
  constexpr ino_t initial_pid_namespace = 0xEFFFFFFC;
  struct stat st;
  return ::stat("/proc/self/ns/pid", &st) == 0 && st.st_ino == initial_pid_namespace;
}

}  // namespace

HeldLocks::HeldLocks(std::string_view proc_locks, bool complete) {
  take(proc_locks, complete);
}

void HeldLocks::take(std::string_view proc_locks, bool complete) {
  looked_at_all_ = true;
  complete_ = complete;
  for (const FileLock& lock : parse_locks(proc_locks)) inodes_.insert(lock.inode);
}

void HeldLocks::expect(size_t files) {
  if (files <= kAskEach || looked_at_all_ || reading_) return;
  reading_ = true;
  reader_.employ(1);
  reader_.post([this] { proc_locks_ = read_system_file("locks"); });
}

void HeldLocks::look_at_all() {
  reader_.finish();
  if (!reading_) proc_locks_ = read_system_file("locks");
  take(proc_locks_, sees_all_locks());
}

bool HeldLocks::may_hold(int fd, const struct stat& st) {
  // flock(2) takes any file, but on these nobody takes one.
  constexpr unsigned kMemoryDevices = 1;
  if (S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode) || (S_ISCHR(st.st_mode) && major(st.st_rdev) == kMemoryDevices))
    return false;
  if (!looked_at_all_) {
    if (!reading_ && ++asked_ <= kAskEach) return true;
    look_at_all();
  }
  if (!complete_) return true;
  if (inodes_.empty()) return false;
  if (inodes_.contains(st.st_ino)) return true;
  // An overlay shows the numbers of the file system below, while /proc/locks shows its own.
  const auto [at, fresh] = own_numbers_.try_emplace(st.st_dev, false);
  if (fresh) {
    struct statfs fs;
    at->second = ::fstatfs(fd, &fs) < 0 || fs.f_type == OVERLAYFS_SUPER_MAGIC;
  }
  return at->second;
}

std::vector<FileLock> HeldLocks::held(int fd, const struct stat& st, pid_t pid, int number) {
  std::vector<FileLock> locks;
  if (!may_hold(fd, st)) return locks;
  if (!proc_ || proc_->pid() != pid) proc_.emplace(pid);
  const std::string name = fmt::format("fdinfo/{}", number);
  for (const std::string_view line : parse_fdinfo(proc_->read(name.c_str())).locks)
    locks.push_back(parse_lock_line(line));
  return locks;
}

}  // namespace stasis
