// What a restore is asked to do, free of any spelling. The caller has checked every value by itself; whether a
// choice suits the images is found out by the restore.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/choices.h"
#include "base/fd.h"

namespace stasis {

// A descriptor of the caller that takes the place of a saved one.
struct InheritedFd {
  int fd = -1;      // open in this process; not owned
  std::string key;  // exact string: "tty[8801:1b]", "pipe:[4711]", "file[2f:1a]", a path without leading slash
};

// An existing namespace to enter instead of making one.
struct JoinNamespace {
  std::string kind;    // net, uts, time, ipc, user, mnt
  std::string target;  // pid in decimal, or path of a namespace file
  // For a user namespace: ids to take after entering it.
  std::optional<uint32_t> uid;
  std::optional<uint32_t> gid;
};

// What a restore counted. The fields are those of the statistics image.
struct RestoreStatistics {
  uint64_t pages_compared = 0;
  uint64_t pages_skipped_cow = 0;
  uint32_t forking_time_us = 0;
  uint32_t restore_time_us = 0;
  std::optional<uint64_t> pages_restored;
};

struct RestoreOptions {
  enum class FinalState { running, stopped };

  // --- what, and where from ---
  Fd images_dir;  // opened O_RDONLY|O_DIRECTORY
  std::string images_dir_shown;
  Fd work_dir;  // takes statistics and a relative pid file; also the current directory of the process
  FinalState final_state = FinalState::running;

  // --- the place of the tree ---
  bool detached = false;  // do not wait for the restored root
  bool sibling = false;   // the root becomes a sibling of this process, a child of its parent
  // Detached, but this process lives on as the parent of the root: a command is executed in it, or it becomes init.
  bool parent_stays = false;
  // This process is the first of a pid namespace that was made for the tree (restore/pid_namespace.h).
  bool new_pid_namespace = false;
  std::string pidfile;         // gets the pid of the root as the caller sees it; empty: none
  std::string root;            // new root of the mount namespace; empty: the caller's
  bool time_namespace = true;  // a time namespace keeps monotonic clocks going; false: clocks may jump
  bool vdso_by_jumps = false;  // as if the vdso of this kernel differed from the dumped one
  std::vector<JoinNamespace> join_ns;
  bool empty_net_namespace = false;  // make the network namespace but leave filling it to the caller

  // --- what the images may hold ---
  bool shell_job = false;        // take session, group and terminal from the caller
  bool tcp_established = false;  // bring established connections back
  bool tcp_close = false;        // bring them back closed
  bool file_locks = false;       // bring file locks back
  bool ext_unix_sk = false;      // connect to peers outside of the tree
  bool link_remap = false;       // temporary hard links may be there
  bool evasive_devices = false;
  bool allow_uprobes = false;        // must be what it was at the dump
  bool weak_sysctls = false;         // skip sysctls that this kernel does not have
  bool skip_file_rwx_check = false;  // permission bits of files may have changed
  bool allow_grown = false;          // files may have grown
  bool external_sharing = false;
  bool external_masters = false;
  bool external_auto = false;
  bool mntns_compat_mode = false;  // the older way of building mounts
  FileValidation file_validation = FileValidation::build_id;
  std::vector<std::string> external;  // "mnt[cookie]:/path", "veth[eth0]:out@bridge": exact strings
  std::vector<InheritedFd> inherit_fd;
  std::vector<std::string> skip_mounts;
  std::vector<std::string> enable_fs;
  std::vector<std::string> action_scripts;  // in the order given; the newest runs first
  std::string lsm_profile;                  // "type:name"; empty: as dumped
  std::string lsm_mount_context;            // empty: as dumped

  // --- the machine ---
  CpuChecks cpu;
  CpuAffinityChoice cpu_affinity = CpuAffinityChoice::keep;

  // --- control groups ---
  CgroupMode manage_cgroups = CgroupMode::soft;
  std::vector<CgroupRoot> cgroup_roots;
  std::string cgroup_props;
  std::string cgroup_props_file;
  std::string cgroup_yard;

  // --- memory ---
  bool lazy_pages = false;  // fill on demand from a running pager
  bool auto_dedup = false;  // punch pages out of the images once used

  // --- telling ---
  RestoreStatistics* statistics = nullptr;  // filled before the wait for the root begins; not owned, may be null
  bool log_pid = false;                     // a log file for every task
  bool unprivileged = false;                // the caller is not root and knows it
};

}  // namespace stasis
