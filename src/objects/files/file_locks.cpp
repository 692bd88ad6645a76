#include "objects/files/file_locks.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <limits>

#include "base/error.h"
#include "kernel/process.h"
#include "kernel/uapi.h"

namespace stasis {
namespace {

using Kind = SavedLock::Kind;
using Type = SavedLock::Type;

// In the type of a lease in the images: it is being broken.
constexpr uint32_t kBreaking = 4;

std::string_view name_of(Kind kind) {
  switch (kind) {
    case Kind::posix:
      return "POSIX record lock";
    case Kind::flock:
      return "flock lock";
    case Kind::ofd:
      return "lock of an open file description";
    case Kind::lease:
      break;
  }
  return "lease";
}

Kind kind_of(const FileLock& lock, const std::string& object) {
  switch (lock.kind) {
    case FileLock::Kind::posix:
      return Kind::posix;
    case FileLock::Kind::flock:
      return Kind::flock;
    case FileLock::Kind::ofd:
      return Kind::ofd;
    case FileLock::Kind::lease:
      return Kind::lease;
    default:
      throw Error(Reason::FILE_LOCKS_HELD, "the descriptor holds a lock of a kind that cannot be saved")
          .object(object)
          .remedy("let the task release its locks before the dump");
  }
}

Type type_of(const FileLock& lock, const std::string& object) {
  switch (lock.type) {
    case FileLock::Type::read:
      return Type::read;
    case FileLock::Type::write:
      return Type::write;
    case FileLock::Type::none:
      return Type::none;
    case FileLock::Type::unknown:
      break;
  }
  throw Error(Reason::PROC_TEXT, "a lock is neither for reading nor for writing").object(object);
}

short fcntl_type(Type type) {
  return type == Type::write ? F_WRLCK : type == Type::read ? F_RDLCK : F_UNLCK;
}

struct flock range_of(const SavedLock& lock) {
  struct flock range {};
  range.l_type = fcntl_type(lock.type);
  range.l_whence = SEEK_SET;
  range.l_start = lock.start;
  range.l_len = lock.bytes;
  return range;
}

// What has to be taken so that breaking leads to the saved type. A lease to write that is given up altogether looks
// like one to read from then on, which is all that a file that is open for reading can be sure to get.
int lease_to_take(const SavedLock& lock, int fd) {
  if (!lock.breaking) return fcntl_type(lock.type);
  if (lock.type == Type::read) return F_WRLCK;
  return (::fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY ? F_RDLCK : F_WRLCK;
}

Error taken(const SavedLock& lock, int error_number, std::string by) {
  return Error(Reason::FILE_LOCK_TAKEN, fmt::format("{} cannot be taken again: {}", describe(lock), by))
      .object(fmt::format("fd {} of pid {}", lock.number, lock.pid))
      .error_number(error_number);
}

// Asks as the open file, which conflicts with record locks as well. Nothing is taken.
void probe_range(const SavedLock& lock, int fd) {
  struct flock range = range_of(lock);
  if (::fcntl(fd, F_OFD_GETLK, &range) < 0) throw taken(lock, errno, "it cannot be asked for");
  if (range.l_type == F_UNLCK) return;
  throw taken(lock, 0, range.l_pid > 0 ? fmt::format("pid {} has one in the way", range.l_pid) : "one is in the way");
}

// Takes it, and gives it back: there is no call that only asks.
void probe_whole(const SavedLock& lock, int fd) {
  if (::flock(fd, (lock.type == Type::write ? LOCK_EX : LOCK_SH) | LOCK_NB) < 0)
    throw taken(lock, errno, "another open file has one");
  ::flock(fd, LOCK_UN);
}
void probe_lease(const SavedLock& lock, int fd) {
  if (::fcntl(fd, F_SETLEASE, lease_to_take(lock, fd)) < 0) throw taken(lock, errno, "somebody else has the file open");
  ::fcntl(fd, F_SETLEASE, F_UNLCK);
}

}  // namespace

std::string describe(const SavedLock& lock) {
  const std::string_view type = lock.type == Type::write ? "write" : lock.type == Type::read ? "read" : "broken";
  std::string text = fmt::format("a {} {}", type, name_of(lock.kind));
  if (lock.kind != Kind::posix && lock.kind != Kind::ofd) return text;
  if (lock.bytes == 0) return fmt::format("{} from byte {} on", text, lock.start);
  return fmt::format("{} on bytes {} to {}", text, lock.start, lock.start + lock.bytes - 1);
}

SavedLock saved_lock(const FileLock& lock, pid_t pid, int number, const std::string& object) {
  SavedLock out{.kind = kind_of(lock, object), .type = type_of(lock, object), .pid = pid, .number = number};
  if (out.kind == Kind::lease) {
    out.breaking = lock.mode == "BREAKING";
    return out;
  }
  if (out.kind == Kind::flock) return out;
  out.start = static_cast<int64_t>(lock.start);
  out.bytes = lock.end == FileLock::kToEnd ? 0 : static_cast<int64_t>(lock.end - lock.start + 1);
  return out;
}

void DumpedLocks::add(const FileLock& lock, uint32_t files_id, uint32_t file_id, const FileView& view,
                      const DumpFiles& files) {
  SavedLock saved = saved_lock(lock, view.pid, view.number, view.who());
  const bool record = saved.kind == Kind::posix;
  // A table may belong to several processes: the one that has made the lock is shown as its owner.
  if (record && lock.pid != view.pid && files.tree_pids.contains(lock.pid) &&
      kcmp(view.pid, lock.pid, uapi::kcmp_files) == 0)
    saved.pid = lock.pid;
  const auto [at, fresh] =
      known_.try_emplace({record ? files_id : 0, file_id, saved.kind, saved.start, saved.bytes}, locks_.size());
  if (!fresh) {
    // The first descriptor of who made it: a lease keeps the number for its signals.
    if (lock.pid == view.pid && locks_[at->second].pid != view.pid) locks_[at->second] = saved;
    return;
  }
  if (saved.kind == Kind::lease && (saved.type != Type::read || saved.breaking))
    leased_.push_back({view.st.st_dev, view.st.st_ino, view.who()});
  locks_.push_back(saved);
}

void DumpedLocks::check_lease(dev_t dev, ino_t ino) const {
  if (!leased_.empty()) check_leases([&](dev_t d, ino_t i) { return d == dev && i == ino; });
}

void DumpedLocks::check_leases(const std::function<bool(dev_t, ino_t)>& used_by_path) const {
  for (const Leased& l : leased_)
    if (used_by_path(l.dev, l.ino))
      throw Error(Reason::FILE_LOCKS_HELD, "the descriptor holds a lease on a file that is mapped, too")
          .object(l.who)
          .remedy("let the task give up the lease or unmap the file before the dump");
}

pb::file_lock_entry encode_lock(const SavedLock& lock) {
  pb::file_lock_entry out;
  out.set_flag(static_cast<uint32_t>(lock.kind));
  out.set_type(static_cast<uint32_t>(lock.type) | (lock.breaking ? kBreaking : 0));
  out.set_pid(lock.pid);
  out.set_fd(lock.number);
  out.set_start(lock.start);
  out.set_len(lock.bytes);
  return out;
}

SavedLock decode_lock(const pb::file_lock_entry& in) {
  SavedLock lock;
  lock.kind = static_cast<Kind>(in.flag());
  lock.breaking = lock.kind == Kind::lease && (in.type() & kBreaking) != 0;
  lock.type = static_cast<Type>(in.type() & ~(lock.breaking ? kBreaking : 0));
  lock.pid = in.pid();
  lock.number = in.fd();
  lock.start = in.start();
  lock.bytes = in.len();
  const bool known_kind =
      lock.kind == Kind::posix || lock.kind == Kind::flock || lock.kind == Kind::ofd || lock.kind == Kind::lease;
  const bool known_type = lock.breaking ? lock.type == Type::read || lock.type == Type::none
                                        : lock.type == Type::read || lock.type == Type::write;
  if (!known_kind || !known_type || lock.number < 0 || lock.start < 0 || lock.bytes < 0 ||
      lock.bytes > std::numeric_limits<int64_t>::max() - lock.start)
    throw Error(Reason::IMAGE_CORRUPT, "a file lock is none that the kernel has")
        .object(fmt::format("fd {} of pid {}", in.fd(), in.pid()));
  return lock;
}

void DumpedLocks::encode(ImageStore& store) const {
  ImageWriter& writer = store.writer(ImageKind::FILE_LOCKS);
  for (const SavedLock& lock : locks_) writer.write(encode_lock(lock));
}

void take_lock(const SavedLock& lock, int fd, SyscallBatch& batch) {
  switch (lock.kind) {
    case Kind::posix:
    case Kind::ofd:
      probe_range(lock, fd);
      batch.must(SYS_fcntl,
                 {lock.number, lock.kind == Kind::ofd ? F_OFD_SETLK : F_SETLK, batch.object(range_of(lock))});
      return;
    case Kind::flock:
      probe_whole(lock, fd);
      batch.must(SYS_flock, {lock.number, (lock.type == Type::write ? LOCK_EX : LOCK_SH) | LOCK_NB});
      return;
    case Kind::lease:
      probe_lease(lock, fd);
      batch.must(SYS_fcntl, {lock.number, F_SETLEASE, lease_to_take(lock, fd)});
      return;
  }
}

void finish_lease(const SavedLock& lock, int fd, const FileOwner& owner, const RestoreFiles& files) {
  // Who takes a lease gets its signals, and who gives one up resets who gets them, and which (fs/locks.c).
  if (::fcntl(fd, F_SETOWN, 0) < 0) throw_errno("cannot silence a lease", Reason::RESTORE_CALL_FAILED);
  if (lock.breaking) {
    // The task was told before the dump.
    const Fd conflict = reopen(fd, (lock.type == Type::read ? O_RDONLY : O_WRONLY) | O_NONBLOCK | O_CLOEXEC);
    if (conflict || errno != EWOULDBLOCK)
      throw Error(Reason::RESTORE_CALL_FAILED, "a lease cannot be broken again as it was at the dump")
          .object(fmt::format("fd {} of pid {}", lock.number, lock.pid))
          .error_number(conflict ? 0 : errno);
  }
  restore_file_owner(owner, fd, files, "the holder of a lease");
}

}  // namespace stasis
