#include "cli/mapping.h"

namespace stasis::cli {

namespace {

// Fields that both structs have under the same name.
template <class Options>
void map_common(const CommandLine& line, Workplace& place, Options& out) {
  out.images_dir = std::move(place.images_dir);
  out.images_dir_shown = std::move(place.images_dir_shown);
  out.work_dir = std::move(place.work_dir);
  out.shell_job = line.shell_job;
  out.tcp_established = line.tcp_established;
  out.tcp_close = line.tcp_close;
  out.file_locks = line.file_locks;
  out.ext_unix_sk = line.ext_unix_sk;
  out.evasive_devices = line.evasive_devices;
  out.link_remap = line.link_remap;
  out.allow_uprobes = line.allow_uprobes;
  out.external_sharing = line.external_sharing;
  out.external_masters = line.external_masters;
  out.external_auto = line.external_auto;
  out.file_validation = line.file_validation;
  out.external = line.external;
  out.skip_mounts = line.skip_mounts;
  out.enable_fs = line.enable_fs;
  out.action_scripts = line.action_scripts;
  out.cpu = line.cpu;
  out.empty_net_namespace = line.empty_net_namespace;
  out.manage_cgroups = line.manage_cgroups;
  out.cgroup_roots = line.cgroup_roots;
  out.cgroup_props = line.cgroup_props;
  out.cgroup_props_file = line.cgroup_props_file;
  out.cgroup_yard = line.cgroup_yard;
  out.lazy_pages = line.lazy_pages;
  out.auto_dedup = line.auto_dedup;
  out.unprivileged = line.unprivileged;
}

}  // namespace

DumpOptions to_dump_options(const CommandLine& line, Workplace place) {
  DumpOptions out;
  map_common(line, place, out);
  out.pid = line.tree;
  out.parent_dir = line.prev_images_dir;
  // Stopped wins over running when both are given.
  out.final_state = line.leave_stopped   ? DumpOptions::FinalState::stopped
                    : line.leave_running ? DumpOptions::FinalState::running
                                         : DumpOptions::FinalState::kill;
  out.timeout_s = line.timeout_s;
  out.freeze_cgroup = line.freeze_cgroup;
  out.skip_in_flight = line.skip_in_flight;
  out.force_irmap = line.force_irmap;
  out.ghost_limit_bytes = line.ghost_limit_bytes;
  out.ghost_fiemap = line.ghost_fiemap;
  out.irmap_scan_paths = line.irmap_scan_paths;
  out.network_lock = line.network_lock;
  out.allow_lossy = line.allow_lossy;
  out.snapshot = line.snapshot;
  out.cgroup_dump_controllers = line.cgroup_dump_controllers;
  out.track_mem = line.track_mem;
  out.status_fd = line.status_fd;
  return out;
}

RestoreOptions to_restore_options(const CommandLine& line, Workplace place) {
  RestoreOptions out;
  map_common(line, place, out);
  out.final_state = line.leave_stopped ? RestoreOptions::FinalState::stopped : RestoreOptions::FinalState::running;
  // A command that is executed takes over the waiting.
  out.detached = line.detached || line.exec_cmd;
  out.sibling = line.restore_sibling;
  out.new_pid_namespace = line.new_pid_namespace;
  out.parent_stays = line.exec_cmd || line.new_pid_namespace;
  out.pidfile = line.pidfile;
  out.root = line.root;
  out.time_namespace = line.time_namespace;
  out.join_ns = line.join_ns;
  out.weak_sysctls = line.weak_sysctls;
  out.skip_file_rwx_check = line.skip_file_rwx_check;
  out.allow_grown = line.allow_grown;
  out.mntns_compat_mode = line.mntns_compat_mode;
  out.inherit_fd = line.inherit_fd;
  out.lsm_profile = line.lsm_profile;
  out.lsm_mount_context = line.lsm_mount_context;
  out.cpu_affinity = line.cpu_affinity;
  out.log_pid = line.log_pid;
  constexpr int kVdsoFault = 127;
  out.vdso_by_jumps = line.fault == kVdsoFault;
  return out;
}

CheckOptions to_check_options(const CommandLine& line) {
  return {.extra = line.extra || line.check_all,
          .experimental = line.experimental || line.check_all,
          .list = line.check_all || line.verbosity >= 3,
          .feature = line.feature};
}

}  // namespace stasis::cli
