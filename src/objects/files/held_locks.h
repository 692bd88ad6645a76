// Does a descriptor hold file locks or leases? /proc/PID/fdinfo/N tells, for 6 us each. One look at /proc/locks rules
// nearly all files out, but the kernel waits for an RCU grace period in it (percpu_down_write(&file_rwsem)): 9 ms on
// two processors. So that is done once there are very many files to ask about.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <optional>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "kernel/proc.h"

namespace stasis {

class HeldLocks {
 public:
  HeldLocks() = default;
  // For tests: the text of /proc/locks, and whether it lists every lock.
  HeldLocks(std::string_view proc_locks, bool complete);

  // Throws FILE_LOCKS_HELD when descriptor `number` of the process holds any. `fd` is a duplicate of it.
  void refuse(int fd, const struct stat& st, pid_t pid, int number, std::string_view owner);

 private:
  bool may_hold(int fd, const struct stat& st);
  // Takes the locks of the machine as they are now; the tree is frozen.
  void look_at_all();

  size_t asked_ = 0;
  bool looked_at_all_ = false;
  bool complete_ = false;
  std::unordered_set<uint64_t> inodes_;
  std::unordered_map<dev_t, bool> own_numbers_;  // file systems whose st_ino is not the one in /proc/locks
  std::optional<ProcDir> proc_;                  // of the process asked about last
};

}  // namespace stasis
