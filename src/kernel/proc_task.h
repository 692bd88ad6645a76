// Text of /proc/PID/stat and /proc/PID/status.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace stasis {

// Fields of proc(5), in their order. Addresses read 0 without ptrace-read access to the task.
struct ProcStat {
  pid_t pid = 0;
  std::string comm;
  char state = '?';
  pid_t ppid = 0;
  pid_t pgid = 0;
  pid_t sid = 0;
  uint32_t tty_nr = 0;  // as encoded by the kernel; 0: no terminal
  pid_t tty_pgrp = -1;
  uint32_t flags = 0;  // PF_*
  uint64_t min_flt = 0, cmin_flt = 0, maj_flt = 0, cmaj_flt = 0;
  uint64_t utime_ticks = 0, stime_ticks = 0;
  int64_t cutime_ticks = 0, cstime_ticks = 0;
  int priority = 0;
  int nice = 0;
  int num_threads = 0;
  uint64_t start_time_ticks = 0;
  uint64_t vsize_bytes = 0;
  int64_t rss_pages = 0;
  uint64_t rss_limit_bytes = 0;
  uint64_t start_code = 0, end_code = 0, start_stack = 0;
  uint64_t kstk_esp = 0, kstk_eip = 0;
  uint64_t wchan = 0;
  int exit_signal = 0;
  int processor = 0;
  uint32_t rt_priority = 0;
  uint32_t policy = 0;
  uint64_t start_data = 0, end_data = 0, start_brk = 0;
  uint64_t arg_start = 0, arg_end = 0, env_start = 0, env_end = 0;
  int exit_code = 0;  // as from waitpid

  bool kernel_thread() const noexcept { return (flags & 0x00200000) != 0; }  // PF_KTHREAD
  // io_uring and vhost workers are listed as threads but run no user code: never inject into them.
  bool io_worker() const noexcept { return (flags & 0x00000010) != 0; }    // PF_IO_WORKER
  bool user_worker() const noexcept { return (flags & 0x00004000) != 0; }  // PF_USER_WORKER (6.4)
  bool zombie() const noexcept { return state == 'Z' || state == 'X'; }
};

ProcStat parse_stat(std::string_view text);

// One id per nested pid namespace, the reader's first, the task's own last. The kernel nests at most 32 deep.
struct NsIds {
  std::array<pid_t, 33> ids{};
  uint8_t count = 0;

  const pid_t* begin() const noexcept { return ids.data(); }
  const pid_t* end() const noexcept { return ids.data() + count; }
  size_t size() const noexcept { return count; }
  // The id inside the task's own namespace; 0 when the kernel gave none.
  pid_t innermost() const noexcept { return count == 0 ? 0 : ids[count - 1u]; }
};

struct ProcStatus {
  std::string name;  // escapes undone
  std::optional<uint32_t> umask;
  char state = '?';
  pid_t tgid = 0, ngid = 0, pid = 0, ppid = 0, tracer_pid = 0;
  std::array<uint32_t, 4> uid{}, gid{};  // real, effective, saved, filesystem
  uint32_t fd_size = 0;
  std::vector<uint32_t> groups;
  NsIds ns_tgid, ns_pid, ns_pgid, ns_sid;
  std::optional<bool> kthread;  // 6.9
  uint32_t threads = 0;
  uint64_t sigq = 0, sigq_limit = 0;
  uint64_t sig_pending = 0, shared_pending = 0, sig_blocked = 0, sig_ignored = 0, sig_caught = 0;
  uint64_t cap_inheritable = 0, cap_permitted = 0, cap_effective = 0, cap_bounding = 0, cap_ambient = 0;
  bool no_new_privs = false;
  int seccomp = 0;                          // 0 off, 1 strict, 2 filter
  std::optional<uint32_t> seccomp_filters;  // 5.10
  bool store_bypass_open = false;           // Speculation_Store_Bypass: the thread could be restricted, and is not
  std::optional<bool> thp_enabled;          // 5.0
  uint64_t vm_locked_kib = 0, vm_size_kib = 0, vm_rss_kib = 0;
  bool has_mm = false;              // false: zombie or kernel thread, no Vm lines
  uint64_t voluntary_switches = 0;  // of the thread: how often it went to sleep
  bool x86_shadow_stack = false;    // "shstk" in x86_Thread_features (6.6)
};

ProcStatus parse_status(std::string_view text);

// /proc/PID/syscall: the call in which a task sleeps.
struct ProcSyscall {
  int64_t number = 0;
  std::array<uint64_t, 6> args{};
  uint64_t instruction_pointer = 0;
};
// Nothing if it runs, or sleeps in no call.
std::optional<ProcSyscall> parse_syscall(std::string_view text);

// /proc/PID/sched.
struct ProcSched {
  uint64_t exec_start_ns = 0;       // of a task that sleeps: when it went to sleep, by the clock of its processor
  uint64_t voluntary_switches = 0;  // how often it did
};
// Nothing if the kernel does not tell either.
std::optional<ProcSched> parse_sched(std::string_view text);

}  // namespace stasis
