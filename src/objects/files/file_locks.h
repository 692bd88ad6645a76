// File locks and leases of all kinds: POSIX record locks, flock(2), locks of open file descriptions, leases that are
// perhaps being broken. They are no state of an open file: a record lock belongs to a table of descriptors, and goes
// when any descriptor of the file is closed there.
//
// Every lock is made again by the task that has its descriptor: the kernel keeps who made it.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "image/store.h"
#include "kernel/proc.h"
#include "objects/files/file_kind.h"
#include "proto/file-lock.pb.h"

namespace stasis {

struct SavedLock {
  // As the images have them.
  enum class Kind : uint32_t { posix = 1, flock = 2, ofd = 4, lease = 8 };
  enum class Type : uint32_t { read = 0, write = 1, none = 2 };

  Kind kind = Kind::posix;
  Type type = Type::read;  // of a lease that is being broken: what it becomes
  bool breaking = false;
  pid_t pid = 0;
  int number = -1;  // descriptor
  int64_t start = 0;
  int64_t bytes = 0;  // 0: up to the end of the file

  bool operator==(const SavedLock&) const = default;
};

// "a write lock (POSIX) on bytes 10 to 20"
std::string describe(const SavedLock& lock);

// Throws FILE_LOCKS_HELD for a kind that cannot be saved, as servers of network file systems have them. `object`: the
// descriptor, for errors.
SavedLock saved_lock(const FileLock& lock, pid_t pid, int number, const std::string& object);

// Of a dump.
class DumpedLocks {
 public:
  // What fdinfo of a descriptor says. `pid` and `number` are those of the descriptor, `file_id` is its open file; what
  // several descriptors show is saved once. `tree_pids`: whoever made a lock is its owner if it still lives.
  void add(const FileLock& lock, uint32_t files_id, uint32_t file_id, const FileView& view, const DumpFiles& files);
  // Of files that are mapped or executed. Throws FILE_LOCKS_HELD if there is a lease to write: the restore would open
  // the file twice. The second looks at all; the first comes before the dump opens the file, which breaks the lease.
  void check_lease(dev_t dev, ino_t ino) const;
  void check_leases(const std::function<bool(dev_t, ino_t)>& used_by_path) const;
  void encode(ImageStore& store) const;

 private:
  struct Key {
    uint32_t owner;  // table of a record lock; open file of others
    uint32_t file_id;
    SavedLock::Kind kind;
    int64_t start, bytes;
    auto operator<=>(const Key&) const = default;
  };
  struct Leased {
    dev_t dev;
    ino_t ino;
    std::string who;
  };
  std::map<Key, size_t> known_;
  std::vector<SavedLock> locks_;
  std::vector<Leased> leased_;
};

pb::file_lock_entry encode_lock(const SavedLock& lock);
// Throws IMAGE_CORRUPT.
SavedLock decode_lock(const pb::file_lock_entry& in);

// Adds the call that makes the lock in its task. `fd`: the same open file in this program. Throws FILE_LOCK_TAKEN if
// somebody else has one in the way.
void take_lock(const SavedLock& lock, int fd, SyscallBatch& batch);
// Of a lease, when all tasks have all locks: if it was being broken, begins that again, and nobody gets a signal. Sets
// the saved `owner` of the file, which changes with its leases.
void finish_lease(const SavedLock& lock, int fd, const FileOwner& owner, const RestoreFiles& files);

}  // namespace stasis
