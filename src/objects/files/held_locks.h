// Does a descriptor hold file locks or leases? /proc/PID/fdinfo/N tells, but opening it for each of thousands of files
// would cost more than everything else about them; one look at /proc/locks rules nearly all of them out.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "kernel/proc.h"

namespace stasis {

class HeldLocks {
 public:
  // The locks of the machine as they are now; the tree is frozen.
  HeldLocks();
  // For tests: the text of /proc/locks, and whether it lists every lock.
  HeldLocks(std::string_view proc_locks, bool complete);

  // Throws FILE_LOCKS_HELD when descriptor `number` of the process holds any. `fd` is a duplicate of it.
  void refuse(int fd, const struct stat& st, pid_t pid, int number, std::string_view owner);

 private:
  bool may_hold(int fd, const struct stat& st);

  bool complete_;
  std::unordered_set<uint64_t> inodes_;
  std::unordered_map<dev_t, bool> own_numbers_;  // file systems whose st_ino is not the one in /proc/locks
  std::optional<ProcDir> proc_;                  // of the process asked about last
};

}  // namespace stasis
