// Does a descriptor hold file locks or leases? /proc/PID/fdinfo/N tells, for 6 us each. One look at /proc/locks rules
// nearly all files out, but the kernel waits for an RCU grace period in it (percpu_down_write(&file_rwsem)): 9 ms on
// two processors. So that is done for very many files only, and by a thread of its own while there is other work.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/workers.h"
#include "kernel/proc.h"

namespace stasis {

class HeldLocks {
 public:
  HeldLocks() = default;
  // For tests: the text of /proc/locks, and whether it lists every lock.
  HeldLocks(std::string_view proc_locks, bool complete);

  // So many files will be asked about, and their owners stand still from now on.
  void expect(size_t files);
  // Those of descriptor `number` of the process. `fd` is a duplicate of it. Texts in them are good until the next call.
  std::vector<FileLock> held(int fd, const struct stat& st, pid_t pid, int number);

 private:
  bool may_hold(int fd, const struct stat& st);
  // Takes the locks of the machine as they are now; the tree is frozen.
  void look_at_all();
  void take(std::string_view proc_locks, bool complete);

  size_t asked_ = 0;
  bool looked_at_all_ = false;
  bool complete_ = false;
  std::string proc_locks_;  // by the reader
  bool reading_ = false;
  Workers reader_{0};
  std::unordered_set<uint64_t> inodes_;
  std::unordered_map<dev_t, bool> own_numbers_;  // file systems whose st_ino is not the one in /proc/locks
  std::optional<ProcDir> proc_;                  // of the process asked about last
};

}  // namespace stasis
