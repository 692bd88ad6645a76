#include "kernel/features.h"

#include <algorithm>

#include "kernel/probe_list.h"

namespace stasis {
namespace {

using enum FeatureCategory;

constexpr Feature kTable[] = {
    {"ptrace_seize", needed, "Stops tasks without a signal that they could see.", probes::ptrace_seize},
    {"process_vm", needed, "Copies memory of another task.", probes::process_vm},
    {"proc_mem_write", needed, "Writes code into read-only memory of a stopped task.", probes::proc_mem_write},
    {"pidfd_getfd", needed, "Takes duplicates of a task's descriptors from outside.", probes::pidfd_getfd},
    {"kcmp_file", needed, "Tells whether two descriptors are the same open file.", probes::kcmp_file},
    {"clone3_set_tid", needed, "Restores a task with the pid it had.", probes::clone3_set_tid},
    {"prctl_mm_map", needed, "Restores the boundaries of code, heap, arguments and environment.", probes::prctl_mm_map},
    {"can_map_vdso", needed, "Puts the vdso where the task had it.", probes::can_map_vdso},
    {"map_vdso", needed, "Maps the vdso at a chosen address after the old one is gone.", probes::map_vdso},
    {"memfd_exec", needed, "Starts the restore stub from memory.", probes::memfd_exec},
    {"mnt_id", needed, "Tells which mount an open file belongs to.", probes::mnt_id},
    {"ns_pid", needed, "Tells the pids of a task in nested pid namespaces.", probes::ns_pid},
    {"get_rseq_conf", needed, "Saves restartable sequences, which every program of a recent glibc registers.",
     probes::get_rseq_conf},

    {"pagemap_scan", common, "Finds the pages to save without reading pagemap page by page.", probes::pagemap_scan},
    {"pagemap_scan_guard_pages", common, "Saves guard pages made by madvise.", probes::pagemap_scan_guard_pages},
    {"pagemap_pfn", common, "Recognises pages shared between tasks by their frame number.", probes::pagemap_pfn},
    {"mem_dirty_track", common, "Saves only pages changed since the last round (--track-mem).",
     probes::mem_dirty_track},
    {"uffd", common, "Restores memory on demand (--lazy-pages).", probes::uffd},
    {"uffd-noncoop", common, "Lazy restore of tasks that fork, unmap or move memory.", probes::uffd_noncoop},
    {"memfd_hugetlb", common, "Restores shared memory made of huge pages.", probes::memfd_hugetlb},
    {"aio_remap", common, "Restores contexts of asynchronous I/O.", probes::aio_remap},
    {"seccomp_suspend", common, "Works inside tasks that run under a seccomp filter.", probes::seccomp_suspend},
    {"seccomp_filters", common, "Saves seccomp filters.", probes::seccomp_filters},
    {"breakpoints", common, "Stops a task at an address by a debug register.", probes::breakpoints},
    {"pidfd_store", common, "Recognises reused pids between pre-dumps.", probes::pidfd_store},
    {"kcmp_epoll", common, "Finds the file behind an epoll registration.", probes::kcmp_epoll},
    {"userns", common, "Saves user namespaces.", probes::userns},
    {"cgroupns", common, "Saves cgroup namespaces.", probes::cgroupns},
    {"timens", common, "Saves time namespaces; monotonic clocks go on where they were.", probes::timens},
    {"loginuid", common, "Saves the audit login id.", probes::loginuid},
    {"timer_cr_ids", common, "Restores POSIX timers with large ids at once.", probes::timer_cr_ids},
    {"fdinfo_lock", common, "Saves file locks (--file-locks).", probes::fdinfo_lock},
    {"timerfd", common, "Saves timer descriptors with unread expirations.", probes::timerfd},
    {"openat2", common, "Opens files below a root without leaving it.", probes::openat2},
    {"move_mount_set_group", common, "Restores the propagation groups of mounts.", probes::move_mount_set_group},
    {"tun", common, "Saves TUN and TAP devices.", probes::tun},
    {"tun_ns", common, "Tells the network namespace of a TUN descriptor.", probes::tun_ns},
    {"sk_ns", common, "Tells the network namespace of a socket.", probes::sk_ns},
    {"sk_unix_file", common, "Reaches the file of a bound unix socket.", probes::sk_unix_file},
    {"sockopt_buf_lock", common, "Saves whether socket buffer sizes were set by hand.", probes::sockopt_buf_lock},
    {"ipv6_freebind", common, "Restores IPv6 sockets bound to addresses that are absent.", probes::ipv6_freebind},
    {"tcp_half_closed", common, "Saves TCP connections that one side has closed.", probes::tcp_half_closed},
    {"external_net_ns", common, "Restores into a network namespace made by the caller.", probes::external_net_ns},
    {"nsid", common, "Tells which network namespace a device's peer is in.", probes::nsid},
    {"link_nsid", common, "Restores a device with its peer in another network namespace.", probes::link_nsid},
    {"newifindex", common, "Moves a device into a namespace with a chosen index.", probes::newifindex},
    {"nftables", common, "Saves nftables rules.", probes::nftables},
    {"network_lock_nftables", common, "Holds packets back during a dump by an nftables set.",
     probes::network_lock_nftables},

    {"net_diag_raw", experimental, "Saves raw sockets.", probes::net_diag_raw},
    {"has_ipt_legacy", experimental, "Saves rules of the older iptables interface.", probes::has_ipt_legacy},
    {"autofs", experimental, "Saves autofs mounts.", probes::autofs},
    {"compat_cr", experimental, "Saves 32-bit tasks.", probes::compat_cr},
    {"apparmor_stacking", experimental, "Saves stacked AppArmor profiles.", probes::apparmor_stacking},
    {"overlayfs_maps", experimental, "Finds the files of mappings on overlayfs.", probes::overlayfs_maps},
};

}  // namespace

std::span<const Feature> features() noexcept {
  return kTable;
}

const Feature* find_feature(std::string_view name) noexcept {
  const auto* found = std::ranges::find(kTable, name, &Feature::name);
  return found == std::end(kTable) ? nullptr : found;
}

FeatureResult probe(const Feature& feature) {
  try {
    return feature.run();
  } catch (const std::exception& error) {
    return {false, error.what()};
  }
}

}  // namespace stasis
