// What a dump is asked to do, free of any spelling: the command line, configuration files and requests of the
// service fill the same struct. The caller has checked every value by itself; whether a choice suits the tree
// is found out by the dump.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/choices.h"
#include "base/fd.h"

namespace stasis {

struct DumpOptions {
  enum class FinalState { kill, running, stopped };

  // --- what, and where to ---
  pid_t pid = 0;  // root of the tree, in the caller's pid namespace; > 0
  // The image directory, opened O_RDONLY|O_DIRECTORY and writable for the caller; and its name for messages.
  Fd images_dir;
  std::string images_dir_shown;
  // The directory that takes what is not an image (statistics). Also the current directory of the process.
  Fd work_dir;
  // Images of the step before, relative to images_dir; empty: this dump stands alone.
  std::string parent_dir;
  // What becomes of the tasks after a successful dump.
  FinalState final_state = FinalState::kill;

  // --- stopping the tasks ---
  uint32_t timeout_s = 10;    // for bringing the tree to rest
  std::string freeze_cgroup;  // freezer group that holds the tree; empty: stop task by task

  // --- what the tree may hold ---
  bool shell_job = false;         // the root need not lead its session; session and terminal come from outside
  bool tcp_established = false;   // save established connections
  bool tcp_close = false;         // save connections as closed ones
  bool skip_in_flight = false;    // drop connections nobody has accepted yet
  bool file_locks = false;        // save file locks
  bool ext_unix_sk = false;       // unix sockets may have peers outside of the tree
  bool evasive_devices = false;   // a device node may be named by any path to the same device
  bool link_remap = false;        // unlinked files with other names may get a temporary hard link
  bool force_irmap = false;       // find watched inodes by scanning paths
  bool allow_uprobes = false;     // accept the mapping that the kernel adds for uprobes
  bool external_sharing = false;  // mounts may share propagation with mounts outside
  bool external_masters = false;  // mounts may be slaves of mounts outside
  bool external_auto = false;     // find external mounts without being told
  std::optional<uint64_t> ghost_limit_bytes;  // largest unlinked file kept, in allocated bytes; nothing: any
  bool ghost_fiemap = false;                  // find holes of unlinked files by the extent map, not by seeking
  FileValidation file_validation = FileValidation::build_id;
  // Resources that stay outside, as the exact strings under which they are looked up: "unix[4711]",
  // "mnt[/mountpoint]:cookie".
  std::vector<std::string> external;
  std::vector<std::string> skip_mounts;       // mountpoints to leave out
  std::vector<std::string> enable_fs;         // file system types that come back by themselves; "all" for any
  std::vector<std::string> irmap_scan_paths;  // further paths to look for watched inodes
  std::vector<std::string> action_scripts;    // in the order given; the newest runs first

  std::vector<std::string> allow_lossy;  // state that may be left out: names of kLosses

  // --- the machine ---
  CpuChecks cpu;
  NetworkLock network_lock = NetworkLock::iptables;
  bool empty_net_namespace = false;  // do not save what the network namespace holds

  // --- control groups ---
  CgroupMode manage_cgroups = CgroupMode::soft;
  std::vector<CgroupRoot> cgroup_roots;              // prefixes to strip
  std::vector<std::string> cgroup_dump_controllers;  // only these; empty: all
  std::string cgroup_props;                          // property description
  std::string cgroup_props_file;                     // same, in a file
  std::string cgroup_yard;                           // prepared mounts of the hierarchies

  // --- memory ---
  MemorySnapshot snapshot = MemorySnapshot::automatic;
  bool track_mem = false;   // leave dirty tracking armed for the next step
  bool auto_dedup = false;  // punch superseded pages out of the parent images
  bool lazy_pages = false;  // keep pages and serve them afterwards

  // --- telling ---
  int status_fd = -1;  // gets one NUL byte once lazy pages are served; -1: nobody listens

  bool unprivileged = false;  // the caller is not root and knows it
};

// What a dump counted. The fields are those of the statistics image.
struct DumpStatistics {
  uint32_t freezing_time_us = 0;  // until all tasks stood still
  uint32_t frozen_time_us = 0;    // how long they stood still
  uint32_t memdump_time_us = 0;   // taking memory
  uint32_t memwrite_time_us = 0;  // writing it
  std::optional<uint32_t> irmap_resolve_us;
  uint64_t pages_scanned = 0;
  uint64_t pages_skipped_parent = 0;
  uint64_t pages_written = 0;
  uint64_t pages_lazy = 0;
  std::optional<uint64_t> page_pipes;
  std::optional<uint64_t> page_pipe_bufs;
  std::optional<uint64_t> shpages_scanned;
  std::optional<uint64_t> shpages_skipped_parent;
  std::optional<uint64_t> shpages_written;
};

}  // namespace stasis
