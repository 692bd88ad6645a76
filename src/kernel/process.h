// Thin typed wrappers of system calls that glibc lacks or wraps badly. They own nothing but what they say.
//
// Convention: a wrapper is named after its call and returns what the kernel returns: a value >= 0, or a NEGATIVE ERRNO.
// Nothing throws and errno is not touched, so the caller decides what a failure means. `fail_if()` turns a result into
// an Error where failure is final.
#pragma once

#include <signal.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/address_range.h"
#include "base/error.h"
#include "kernel/uapi.h"

namespace stasis {

// Throws Error(reason) with the errno held in `result` when it is negative; else returns it.
long fail_if(long result, std::string_view what_failed, Reason reason = Reason::SYSTEM,
             SourcePlace place = SourcePlace::here());

// The new descriptor is close-on-exec. `flags`: uapi::pidfd_thread, uapi::pidfd_nonblock.
int pidfd_open(pid_t pid, unsigned flags = 0) noexcept;
// A duplicate (close-on-exec) of descriptor `target_fd` of the task behind `pidfd`.
int pidfd_getfd(int pidfd, int target_fd) noexcept;
// `info` may be null: then the signal looks as sent by kill().
int pidfd_send_signal(int pidfd, int signal, const siginfo_t* info = nullptr, unsigned flags = 0) noexcept;

// 0 equal, 1 less, 2 greater (an order that holds until reboot), 3 unequal without order.
int kcmp(pid_t pid1, pid_t pid2, int type, uint64_t idx1 = 0, uint64_t idx2 = 0) noexcept;
// Is descriptor `tfd` of pid1 the file that epoll `slot` of pid2 watches? 0 equal, as kcmp.
int kcmp_epoll(pid_t pid1, int fd, pid_t pid2, const uapi::kcmp_epoll_slot& slot) noexcept;

long tgkill(pid_t tgid, pid_t tid, int signal) noexcept;

// The child continues on the parent's stack copy (no CLONE_VM with a null stack): 0 in the child.
long clone3(uapi::clone_args& args, size_t size = sizeof(uapi::clone_args)) noexcept;

// madvise() for another process; the number of bytes advised.
ssize_t process_madvise(int pidfd, const AddressRange& range, int advice) noexcept;
// One transfer; may be short.
ssize_t process_vm_readv(pid_t pid, std::span<const iovec> local, std::span<const iovec> remote) noexcept;
ssize_t process_vm_writev(pid_t pid, std::span<const iovec> local, std::span<const iovec> remote) noexcept;
// Loops over short transfers: 0 when everything moved, else -EFAULT (an unreadable page) or another errno. Addresses of
// the other task are plain integers here.
int process_vm_read_all(pid_t pid, uint64_t remote, void* local, size_t bytes) noexcept;
int process_vm_write_all(pid_t pid, uint64_t remote, const void* local, size_t bytes) noexcept;

struct RobustList {
  uint64_t head = 0;
  size_t length = 0;
};
int get_robust_list(pid_t tid, RobustList& out) noexcept;

// For the calling thread alone: glibc's wrapper changes every thread of the process (nptl(7)).
int thread_setresuid(uid_t real, uid_t effective, uid_t saved) noexcept;

// Of a stopped thread that the calling thread traces; -EIO on kernels without the request.
int ptrace_rseq_configuration(pid_t tid, uapi::ptrace_rseq_configuration& out) noexcept;
int ptrace_syscall_user_dispatch(pid_t tid, uapi::ptrace_sud_config& out) noexcept;

int sched_getattr(pid_t tid, uapi::sched_attr& out) noexcept;
int sched_setattr(pid_t tid, const uapi::sched_attr& attr) noexcept;
// Of one thread, as IOPRIO_PRIO_VALUE() makes it.
int ioprio_get(pid_t tid) noexcept;
int ioprio_set(pid_t tid, uint32_t priority) noexcept;
// Null pointers skip that direction. 64-bit limits on every architecture.
int prlimit64(pid_t pid, int resource, const rlimit64* new_limit, rlimit64* old_limit) noexcept;

// PAGEMAP_SCAN on an open /proc/PID/pagemap: number of regions written to arg.vec; continue at arg.walk_end.
long pagemap_scan(int pagemap_fd, uapi::pm_scan_arg& arg) noexcept;

int userfaultfd(int flags) noexcept;
int memfd_secret(unsigned flags) noexcept;

// By the release that uname(2) tells; for what cannot be probed at a fair price.
bool kernel_is_at_least(unsigned major, unsigned minor) noexcept;

}  // namespace stasis
