#include "kernel/process.h"

#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <string>

namespace stasis {
namespace {

// The kernel's own result: glibc's syscall() splits it into -1 and errno. errno is put back for the caller.
template <class... Args>
long raw(long number, Args... args) noexcept {
  const int saved = errno;
  const long result = ::syscall(number, args...);
  const long out = result < 0 ? -errno : result;
  errno = saved;
  return out;
}

uint64_t address_of(const void* p) noexcept {
  return reinterpret_cast<uint64_t>(p);
}

}  // namespace

long fail_if(long result, std::string_view what_failed, Reason reason, SourcePlace place) {
  if (result < 0) throw Error(reason, std::string(what_failed), place).error_number(static_cast<int>(-result));
  return result;
}

int pidfd_open(pid_t pid, unsigned flags) noexcept {
  return static_cast<int>(raw(SYS_pidfd_open, pid, flags));
}

int pidfd_getfd(int pidfd, int target_fd) noexcept {
  return static_cast<int>(raw(SYS_pidfd_getfd, pidfd, target_fd, 0));
}

int pidfd_send_signal(int pidfd, int signal, const siginfo_t* info, unsigned flags) noexcept {
  return static_cast<int>(raw(SYS_pidfd_send_signal, pidfd, signal, info, flags));
}

int kcmp(pid_t pid1, pid_t pid2, int type, uint64_t idx1, uint64_t idx2) noexcept {
  return static_cast<int>(raw(SYS_kcmp, pid1, pid2, type, idx1, idx2));
}

int kcmp_epoll(pid_t pid1, int fd, pid_t pid2, const uapi::kcmp_epoll_slot& slot) noexcept {
  return kcmp(pid1, pid2, uapi::kcmp_epoll_tfd, static_cast<uint64_t>(fd), address_of(&slot));
}

long tgkill(pid_t tgid, pid_t tid, int signal) noexcept {
  return raw(SYS_tgkill, tgid, tid, signal);
}

long clone3(uapi::clone_args& args, size_t size) noexcept {
  return raw(SYS_clone3, &args, size);
}

ssize_t process_madvise(int pidfd, const AddressRange& range, int advice) noexcept {
  const iovec where{reinterpret_cast<void*>(range.start), range.size_bytes()};
  return raw(SYS_process_madvise, pidfd, &where, 1ul, advice, 0u);
}

ssize_t process_vm_readv(pid_t pid, std::span<const iovec> local, std::span<const iovec> remote) noexcept {
  return raw(SYS_process_vm_readv, pid, local.data(), local.size(), remote.data(), remote.size(), 0ul);
}

ssize_t process_vm_writev(pid_t pid, std::span<const iovec> local, std::span<const iovec> remote) noexcept {
  return raw(SYS_process_vm_writev, pid, local.data(), local.size(), remote.data(), remote.size(), 0ul);
}

int process_vm_read_all(pid_t pid, uint64_t remote, void* local, size_t bytes) noexcept {
  for (size_t done = 0; done < bytes;) {
    const iovec here{static_cast<char*>(local) + done, bytes - done};
    const iovec there{reinterpret_cast<void*>(remote + done), bytes - done};
    const ssize_t got = process_vm_readv(pid, std::span(&here, 1), std::span(&there, 1));
    if (got < 0) return static_cast<int>(got);
    if (got == 0) return -EFAULT;
    done += static_cast<size_t>(got);
  }
  return 0;
}

int process_vm_write_all(pid_t pid, uint64_t remote, const void* local, size_t bytes) noexcept {
  for (size_t done = 0; done < bytes;) {
    const iovec here{const_cast<char*>(static_cast<const char*>(local)) + done, bytes - done};
    const iovec there{reinterpret_cast<void*>(remote + done), bytes - done};
    const ssize_t put = process_vm_writev(pid, std::span(&here, 1), std::span(&there, 1));
    if (put < 0) return static_cast<int>(put);
    if (put == 0) return -EFAULT;
    done += static_cast<size_t>(put);
  }
  return 0;
}

int get_robust_list(pid_t tid, RobustList& out) noexcept {
  return static_cast<int>(raw(SYS_get_robust_list, tid, &out.head, &out.length));
}

int thread_setresuid(uid_t real, uid_t effective, uid_t saved) noexcept {
  return static_cast<int>(raw(SYS_setresuid, real, effective, saved));
}

int ptrace_rseq_configuration(pid_t tid, uapi::ptrace_rseq_configuration& out) noexcept {
  return static_cast<int>(raw(SYS_ptrace, uapi::ptrace_get_rseq_configuration, tid, sizeof out, &out));
}

int ptrace_syscall_user_dispatch(pid_t tid, uapi::ptrace_sud_config& out) noexcept {
  return static_cast<int>(raw(SYS_ptrace, uapi::ptrace_get_syscall_user_dispatch_config, tid, sizeof out, &out));
}

int sched_getattr(pid_t tid, uapi::sched_attr& out) noexcept {
  return static_cast<int>(raw(SYS_sched_getattr, tid, &out, sizeof out, 0u));
}

int sched_setattr(pid_t tid, const uapi::sched_attr& attr) noexcept {
  return static_cast<int>(raw(SYS_sched_setattr, tid, &attr, 0u));
}

int ioprio_get(pid_t tid) noexcept {
  return static_cast<int>(raw(SYS_ioprio_get, 1, tid));  // IOPRIO_WHO_PROCESS
}

int ioprio_set(pid_t tid, uint32_t priority) noexcept {
  return static_cast<int>(raw(SYS_ioprio_set, 1, tid, priority));
}

int prlimit64(pid_t pid, int resource, const rlimit64* new_limit, rlimit64* old_limit) noexcept {
  return static_cast<int>(raw(SYS_prlimit64, pid, resource, new_limit, old_limit));
}

long pagemap_scan(int pagemap_fd, uapi::pm_scan_arg& arg) noexcept {
  return raw(SYS_ioctl, pagemap_fd, uapi::pagemap_scan, &arg);
}

int userfaultfd(int flags) noexcept {
  return static_cast<int>(raw(SYS_userfaultfd, flags));
}

int memfd_secret(unsigned flags) noexcept {
  return static_cast<int>(raw(SYS_memfd_secret, flags));
}

bool kernel_is_at_least(unsigned major, unsigned minor) noexcept {
  struct utsname host;
  unsigned found_major = 0, found_minor = 0;
  if (::uname(&host) != 0 || std::sscanf(host.release, "%u.%u", &found_major, &found_minor) != 2) return false;
  return found_major > major || (found_major == major && found_minor >= minor);
}

}  // namespace stasis
