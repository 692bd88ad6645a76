// Kernel interface constants and structures that linux-libc-dev 6.1 and glibc 2.36 lack, or whose headers
// cannot be included together with glibc's.
//
// Names are the kernel's in lower case, inside stasis::uapi: macros of a newer header cannot collide with them, and
// `grep -i` finds both. Layouts were read from the type information of a running kernel; every size is asserted.
// Never include linux/fcntl.h (or a header that pulls it in, as newer linux/pidfd.h does) beside fcntl.h: both define
// struct flock. Likewise linux/sched/types.h redefines struct sched_param, and linux/ptrace.h fights sys/ptrace.h.
#pragma once

#include <cstddef>
#include <cstdint>

namespace stasis::uapi {

// ---- system calls without a number in the 6.1 headers; from 424 on every architecture uses the same number ----
inline constexpr long sys_statmount = 457;
inline constexpr long sys_listmount = 458;
inline constexpr long sys_mseal = 462;

// ---- memory: PAGEMAP_SCAN on /proc/PID/pagemap (6.7) ----
struct page_region {
  uint64_t start;
  uint64_t end;  // exclusive
  uint64_t categories;
};
static_assert(sizeof(page_region) == 24);

struct pm_scan_arg {
  uint64_t size = 96;
  uint64_t flags = 0;
  uint64_t start = 0;
  uint64_t end = 0;
  uint64_t walk_end = 0;  // out: where to continue
  uint64_t vec = 0;       // page_region array; may be null
  uint64_t vec_len = 0;
  uint64_t max_pages = 0;  // 0: no limit
  uint64_t category_inverted = 0;
  uint64_t category_mask = 0;
  uint64_t category_anyof_mask = 0;
  uint64_t return_mask = 0;
};
static_assert(sizeof(pm_scan_arg) == 96 && offsetof(pm_scan_arg, return_mask) == 88);

inline constexpr unsigned long pagemap_scan = 0xc0606610;
inline constexpr uint64_t pm_scan_wp_matching = 1;
inline constexpr uint64_t pm_scan_check_wpasync = 2;
inline constexpr uint64_t page_is_wpallowed = 0x1;
inline constexpr uint64_t page_is_written = 0x2;  // meaningless without wpallowed
inline constexpr uint64_t page_is_file = 0x4;
inline constexpr uint64_t page_is_present = 0x8;
inline constexpr uint64_t page_is_swapped = 0x10;  // guard, poison and migration entries count as swapped too
inline constexpr uint64_t page_is_pfnzero = 0x20;
inline constexpr uint64_t page_is_huge = 0x40;
inline constexpr uint64_t page_is_soft_dirty = 0x80;  // 6.8
inline constexpr uint64_t page_is_guard = 0x100;      // 6.16; EINVAL before

// Bits of one 64-bit entry read from /proc/PID/pagemap.
inline constexpr uint64_t pm_soft_dirty = 1ull << 55;
inline constexpr uint64_t pm_mmap_exclusive = 1ull << 56;
inline constexpr uint64_t pm_uffd_wp = 1ull << 57;
inline constexpr uint64_t pm_guard_region = 1ull << 58;
inline constexpr uint64_t pm_file = 1ull << 61;
inline constexpr uint64_t pm_swap = 1ull << 62;
inline constexpr uint64_t pm_present = 1ull << 63;
inline constexpr uint64_t pm_pfn_mask = (1ull << 55) - 1;

// ---- memory: userfaultfd beyond linux/userfaultfd.h of 6.1 ----
inline constexpr uint64_t uffd_feature_wp_unpopulated = 1u << 13;  // 6.4
inline constexpr uint64_t uffd_feature_wp_async = 1u << 15;        // 6.7, implies wp_unpopulated

// ---- memory: advice, mapping kinds, seals ----
inline constexpr int madv_populate_write = 23;  // 5.14
inline constexpr int madv_guard_install = 102;  // 6.13
inline constexpr int madv_guard_remove = 103;   // 6.13
inline constexpr int map_droppable = 0x08;      // 6.11, in place of MAP_PRIVATE or MAP_SHARED
inline constexpr unsigned mfd_noexec_seal = 8;  // 6.3
inline constexpr unsigned mfd_exec = 0x10;      // 6.3
inline constexpr int f_seal_exec = 0x20;        // 6.3

// ---- identity: clone3, pidfd ----
struct clone_args {
  uint64_t flags = 0;
  uint64_t pidfd = 0;
  uint64_t child_tid = 0;
  uint64_t parent_tid = 0;
  uint64_t exit_signal = 0;
  uint64_t stack = 0;
  uint64_t stack_size = 0;
  uint64_t tls = 0;
  uint64_t set_tid = 0;  // pid_t array, innermost pid namespace first
  uint64_t set_tid_size = 0;
  uint64_t cgroup = 0;
};
static_assert(sizeof(clone_args) == 88 && offsetof(clone_args, set_tid) == 64);

inline constexpr uint64_t clone_newtime = 0x80;
inline constexpr uint64_t clone_into_cgroup = 0x200000000ull;

inline constexpr unsigned pidfd_nonblock = 0x800;                    // 5.10
inline constexpr unsigned pidfd_thread = 0x80;                       // 6.9 (O_EXCL)
inline constexpr unsigned long pidfd_get_cgroup_namespace = 0xff01;  // these since 6.11
inline constexpr unsigned long pidfd_get_ipc_namespace = 0xff02;
inline constexpr unsigned long pidfd_get_mnt_namespace = 0xff03;
inline constexpr unsigned long pidfd_get_net_namespace = 0xff04;
inline constexpr unsigned long pidfd_get_pid_namespace = 0xff05;
inline constexpr unsigned long pidfd_get_pid_for_children_namespace = 0xff06;
inline constexpr unsigned long pidfd_get_time_namespace = 0xff07;
inline constexpr unsigned long pidfd_get_time_for_children_namespace = 0xff08;
inline constexpr unsigned long pidfd_get_user_namespace = 0xff09;
inline constexpr unsigned long pidfd_get_uts_namespace = 0xff0a;

inline constexpr int kcmp_file = 0;
inline constexpr int kcmp_vm = 1;
inline constexpr int kcmp_files = 2;
inline constexpr int kcmp_fs = 3;
inline constexpr int kcmp_sighand = 4;
inline constexpr int kcmp_io = 5;
inline constexpr int kcmp_sysvsem = 6;
inline constexpr int kcmp_epoll_tfd = 7;  // 4.13

struct kcmp_epoll_slot {
  uint32_t efd;
  uint32_t tfd;
  uint32_t toff;
};
static_assert(sizeof(kcmp_epoll_slot) == 12);

// ---- ptrace: requests and layouts; pass the request to syscall(SYS_ptrace) or through an int cast ----
inline constexpr unsigned ptrace_getregset = 0x4204;
inline constexpr unsigned ptrace_setregset = 0x4205;
inline constexpr unsigned ptrace_seize = 0x4206;
inline constexpr unsigned ptrace_interrupt = 0x4207;
inline constexpr unsigned ptrace_peeksiginfo = 0x4209;
inline constexpr unsigned ptrace_getsigmask = 0x420a;
inline constexpr unsigned ptrace_setsigmask = 0x420b;
inline constexpr unsigned ptrace_seccomp_get_filter = 0x420c;
inline constexpr unsigned ptrace_seccomp_get_metadata = 0x420d;              // 4.16
inline constexpr unsigned ptrace_get_syscall_info = 0x420e;                  // 5.3
inline constexpr unsigned ptrace_get_rseq_configuration = 0x420f;            // 5.13
inline constexpr unsigned ptrace_set_syscall_user_dispatch_config = 0x4210;  // 6.4
inline constexpr unsigned ptrace_get_syscall_user_dispatch_config = 0x4211;  // 6.4
inline constexpr unsigned ptrace_o_exitkill = 1u << 20;
inline constexpr unsigned ptrace_o_suspend_seccomp = 1u << 21;
inline constexpr uint32_t ptrace_peeksiginfo_shared = 1;
inline constexpr uint8_t ptrace_syscall_info_entry = 1;

struct ptrace_peeksiginfo_args {
  uint64_t off = 0;
  uint32_t flags = 0;
  int32_t nr = 0;
};
static_assert(sizeof(ptrace_peeksiginfo_args) == 16);

struct ptrace_syscall_info {
  uint8_t op;
  uint8_t reserved;
  uint16_t flags;
  uint32_t arch;
  uint64_t instruction_pointer;
  uint64_t stack_pointer;
  union {
    struct {
      uint64_t nr;
      uint64_t args[6];
    } entry;
    struct {
      int64_t rval;
      uint8_t is_error;
    } exit;
    struct {
      uint64_t nr;
      uint64_t args[6];
      uint32_t ret_data;
      uint32_t reserved2;
    } seccomp;
  };
};
static_assert(sizeof(ptrace_syscall_info) == 88 && offsetof(ptrace_syscall_info, entry) == 24);

struct ptrace_rseq_configuration {
  uint64_t rseq_abi_pointer = 0;
  uint32_t rseq_abi_size = 0;
  uint32_t signature = 0;
  uint32_t flags = 0;
  uint32_t pad = 0;
};
static_assert(sizeof(ptrace_rseq_configuration) == 24);

struct ptrace_sud_config {
  uint64_t mode = 0;  // 0 off, 1 exclusive, 2 inclusive (6.17)
  uint64_t selector = 0;
  uint64_t offset = 0;
  uint64_t len = 0;
};
static_assert(sizeof(ptrace_sud_config) == 32);

struct seccomp_metadata {
  uint64_t filter_off = 0;
  uint64_t flags = 0;
};
static_assert(sizeof(seccomp_metadata) == 16);

inline constexpr unsigned nt_x86_xstate = 0x202;

// ---- arch_prctl (x86) ----
inline constexpr int arch_map_vdso_32 = 0x2002;
inline constexpr int arch_map_vdso_64 = 0x2003;
inline constexpr int arch_get_xcomp_perm = 0x1022;  // 5.16
inline constexpr int arch_req_xcomp_perm = 0x1023;

// ---- prctl ----
struct prctl_mm_map {
  uint64_t start_code = 0;
  uint64_t end_code = 0;
  uint64_t start_data = 0;
  uint64_t end_data = 0;
  uint64_t start_brk = 0;
  uint64_t brk = 0;
  uint64_t start_stack = 0;
  uint64_t arg_start = 0;
  uint64_t arg_end = 0;
  uint64_t env_start = 0;
  uint64_t env_end = 0;
  uint64_t auxv = 0;
  uint32_t auxv_size = 0;
  uint32_t exe_fd = ~0u;  // ~0: leave the exe link alone (then no capability is needed)
};
static_assert(sizeof(prctl_mm_map) == 104 && offsetof(prctl_mm_map, exe_fd) == 100);

inline constexpr int pr_set_mm = 35;
inline constexpr int pr_set_mm_map = 14;
inline constexpr int pr_set_mm_map_size = 15;
inline constexpr int pr_get_tid_address = 40;
inline constexpr int pr_set_mdwe = 65;  // 6.3
inline constexpr int pr_get_mdwe = 66;
inline constexpr int pr_set_memory_merge = 67;  // 6.4
inline constexpr int pr_get_memory_merge = 68;
inline constexpr int pr_timer_create_restore_ids = 77;  // 6.15: 0 off, 1 on, 2 get
inline constexpr int pr_get_auxv = 0x41555856;          // 6.4
inline constexpr int pr_set_vma = 0x53564d41;           // 5.17
inline constexpr int pr_set_vma_anon_name = 0;

// ---- scheduling ----
struct sched_attr {
  uint32_t size = 56;
  uint32_t sched_policy = 0;
  uint64_t sched_flags = 0;
  int32_t sched_nice = 0;
  uint32_t sched_priority = 0;
  uint64_t sched_runtime = 0;  // SCHED_OTHER: the custom slice (6.12)
  uint64_t sched_deadline = 0;
  uint64_t sched_period = 0;
  uint32_t sched_util_min = 0;
  uint32_t sched_util_max = 0;
};
static_assert(sizeof(sched_attr) == 56);

// ---- time, timers ----
inline constexpr unsigned long tfd_ioc_set_ticks = 0x40085400;

// ---- descriptors ----
inline constexpr int f_getowner_uids = 17;                          // 3.7, CONFIG_CHECKPOINT_RESTORE
inline constexpr unsigned long inotify_ioc_setnextwd = 0x40044900;  // 4.17
inline constexpr unsigned long epiocsparams = 0x40088a01;           // 6.9
inline constexpr unsigned long epiocgparams = 0x80088a02;
inline constexpr unsigned long siocgskns = 0x894c;
inline constexpr unsigned long siocunixfile = 0x89e0;

struct epoll_params {
  uint32_t busy_poll_usecs = 0;
  uint16_t busy_poll_budget = 0;
  uint8_t prefer_busy_poll = 0;
  uint8_t pad = 0;
};
static_assert(sizeof(epoll_params) == 8);

// ---- mounts and namespaces ----
inline constexpr unsigned move_mount_set_group = 0x100;  // 5.15
inline constexpr unsigned statx_mnt_id_unique = 0x4000;  // 6.8
inline constexpr unsigned long ns_get_userns = 0xb701;
inline constexpr unsigned long ns_get_parent = 0xb702;
inline constexpr unsigned long ns_get_nstype = 0xb703;
inline constexpr unsigned long ns_get_owner_uid = 0xb704;

struct mnt_id_req {
  uint32_t size = 32;
  uint32_t mnt_ns_fd = 0;
  uint64_t mnt_id = 0;  // the 64-bit id; ~0 for the root in listmount
  uint64_t param = 0;   // statmount: mask; listmount: last id seen
  uint64_t mnt_ns_id = 0;
};
static_assert(sizeof(mnt_id_req) == 32);

// ---- sockets ----
inline constexpr int so_buf_lock = 72;        // 5.15
inline constexpr int so_reserve_mem = 73;     // 5.16
inline constexpr int so_txrehash = 74;        // 5.18
inline constexpr int so_rcvmark = 75;         // 5.19
inline constexpr int so_passpidfd = 76;       // 6.5
inline constexpr int so_peerpidfd = 77;       // 6.5
inline constexpr int so_rcvpriority = 82;     // 6.14
inline constexpr int so_passrights = 83;      // 6.16
inline constexpr int tcp_rto_max_ms = 44;     // 6.15
inline constexpr int tcp_rto_min_us = 45;     // 6.15
inline constexpr int tcp_delack_max_us = 46;  // 6.15

}  // namespace stasis::uapi
