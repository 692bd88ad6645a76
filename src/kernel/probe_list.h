// Every probe function; the table in features.cpp gives them names. All are defined in probe_*.cpp.
#pragma once

#include "kernel/features.h"

namespace stasis::probes {

// probe_memory.cpp
FeatureResult mem_dirty_track();
FeatureResult uffd();
FeatureResult uffd_noncoop();
FeatureResult pagemap_scan();
FeatureResult pagemap_scan_guard_pages();
FeatureResult pagemap_pfn();
FeatureResult memfd_hugetlb();
FeatureResult memfd_exec();
FeatureResult aio_remap();
FeatureResult process_vm();
FeatureResult proc_mem_write();
FeatureResult prctl_mm_map();
FeatureResult can_map_vdso();
FeatureResult map_vdso();
FeatureResult compat_cr();

// probe_process.cpp
FeatureResult ptrace_seize();
FeatureResult seccomp_suspend();
FeatureResult seccomp_filters();
FeatureResult get_rseq_conf();
FeatureResult breakpoints();
FeatureResult clone3_set_tid();
FeatureResult pidfd_getfd();
FeatureResult pidfd_store();
FeatureResult kcmp_file();
FeatureResult kcmp_epoll();
FeatureResult ns_pid();
FeatureResult userns();
FeatureResult cgroupns();
FeatureResult timens();
FeatureResult loginuid();
FeatureResult apparmor_stacking();
FeatureResult timer_cr_ids();

// probe_files.cpp
FeatureResult mnt_id();
FeatureResult fdinfo_lock();
FeatureResult timerfd();
FeatureResult openat2();
FeatureResult move_mount_set_group();
FeatureResult autofs();
FeatureResult overlayfs_maps();

// probe_net.cpp
FeatureResult tun();
FeatureResult tun_ns();
FeatureResult sk_ns();
FeatureResult sk_unix_file();
FeatureResult sockopt_buf_lock();
FeatureResult ipv6_freebind();
FeatureResult tcp_half_closed();
FeatureResult external_net_ns();
FeatureResult has_ipt_legacy();

// probe_netlink.cpp
FeatureResult net_diag_raw();
FeatureResult nsid();
FeatureResult link_nsid();
FeatureResult newifindex();
FeatureResult nftables();
FeatureResult network_lock_nftables();

}  // namespace stasis::probes
