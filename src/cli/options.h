// Everything that can be said on the command line or in a configuration file, as values. Owns plain data only;
// each field holds its default until an option sets it. command_line.h fills it, mapping.h turns it into the
// options of a dump or a restore.
#pragma once

#include <sys/types.h>

#include <bitset>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/choices.h"
#include "base/restore_options.h"

namespace stasis::cli {

enum class Verb {
  none,
  dump,
  pre_dump,
  restore,
  lazy_pages,
  check,
  page_server,
  service,
  swrk,
  dedup,
  cpuinfo,
  exec,  // removed
  show,  // removed
};

enum class PreDumpMode { splice = 1, read = 2 };

// Upper bound for the rows of the options table; checked where the table is.
inline constexpr size_t kMaxOptions = 128;

struct CommandLine {
  Verb verb = Verb::none;
  // Words after the verb: the descriptor of swrk, dump or check of cpuinfo, the command of --exec-cmd.
  std::vector<std::string> words;
  // Rows of the options table that were asked for and not taken back by their --no- form.
  std::bitset<kMaxOptions> given;

  // --- generic ---
  bool help = false;
  bool version = false;
  pid_t tree = 0;
  std::string images_dir;
  std::string work_dir;
  std::string prev_images_dir;
  std::string root;
  std::string libdir;
  std::vector<std::string> action_scripts;
  std::string pidfile;
  int status_fd = -1;
  std::vector<int> close_fds;
  std::string config;
  bool default_config = true;
  bool unprivileged = false;
  bool deprecated = false;

  // --- logging ---
  std::string log_file;
  bool log_pid = false;
  int verbosity = 2;
  bool display_stats = false;

  // --- dump and restore ---
  bool leave_stopped = false;
  bool leave_running = false;
  bool detached = false;  // --restore-detached and --daemon are one switch
  bool restore_sibling = false;
  bool exec_cmd = false;
  bool new_pid_namespace = false;
  bool shell_job = false;
  bool file_locks = false;
  bool ext_unix_sk = false;
  bool tcp_established = false;
  bool tcp_close = false;
  bool skip_in_flight = false;
  NetworkLock network_lock = NetworkLock::iptables;
  bool evasive_devices = false;
  bool link_remap = false;
  std::optional<uint64_t> ghost_limit_bytes;
  bool ghost_fiemap = false;
  bool force_irmap = false;
  std::vector<std::string> irmap_scan_paths;
  uint32_t timeout_s = 10;
  std::string freeze_cgroup;
  bool weak_sysctls = false;
  CpuChecks cpu;
  CpuAffinityChoice cpu_affinity = CpuAffinityChoice::keep;
  FileValidation file_validation = FileValidation::build_id;
  bool skip_file_rwx_check = false;
  bool allow_grown = false;
  bool allow_uprobes = false;
  bool mntns_compat_mode = false;
  bool time_namespace = true;
  std::vector<std::string> enable_fs;
  std::vector<std::string> allow_lossy;
  MemorySnapshot snapshot = MemorySnapshot::automatic;
  std::vector<std::string> skip_mounts;
  bool external_auto = false;
  bool external_sharing = false;
  bool external_masters = false;
  std::vector<std::string> external;
  std::vector<InheritedFd> inherit_fd;
  std::vector<JoinNamespace> join_ns;
  bool empty_net_namespace = false;
  std::string lsm_profile;
  std::string lsm_mount_context;
  bool stream = false;

  // --- control groups ---
  CgroupMode manage_cgroups = CgroupMode::soft;
  std::vector<CgroupRoot> cgroup_roots;
  std::string cgroup_props;
  std::string cgroup_props_file;
  std::vector<std::string> cgroup_dump_controllers;
  std::string cgroup_yard;

  // --- memory ---
  bool track_mem = false;
  bool auto_dedup = false;
  PreDumpMode pre_dump_mode = PreDumpMode::splice;
  bool lazy_pages = false;
  bool page_server = false;

  // --- page server, service ---
  std::string address;
  uint16_t port = 0;
  int ps_socket = -1;
  bool tls = false;
  std::string tls_cacert;
  std::string tls_cacrl;
  std::string tls_cert;
  std::string tls_key;
  bool tls_cn_verify = true;

  // --- tests ---
  int fault = 0;  // the number of a difficulty to pretend, see command_line.cpp; 0: none

  // --- check ---
  bool extra = false;
  bool experimental = false;
  bool check_all = false;
  std::string feature;
};

}  // namespace stasis::cli
