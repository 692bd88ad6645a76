#include "objects/files/file_kind.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

#include "base/error.h"
#include "kernel/kernel_memory.h"
#include "kernel/proc.h"
#include "kernel/process.h"
#include "objects/files/io_uring_kernel.h"

namespace stasis {
namespace {

// __O_TMPFILE without O_DIRECTORY; the kernel leaves both in the flags of such a file.
constexpr uint32_t tmpfile_bit = O_TMPFILE & ~O_DIRECTORY;
// Set by the kernel in the flags of executables it opened itself (FMODE_EXEC, include/linux/fs.h).
constexpr uint32_t exec_bit = 040;

// Takes the ids of a file's owner for this thread, and gives the own ones back. The saved uid keeps the way back
// open; the effective capabilities return with the effective uid (capabilities(7)).
class BorrowedIds {
 public:
  BorrowedIds(uint32_t uid, uint32_t euid) {
    ::getresuid(&uid_, &euid_, &saved_);
    if (uid == uid_ && euid == euid_) return;
    dumpable_ = ::prctl(PR_GET_DUMPABLE, 0, 0, 0, 0);
    fail_if(thread_setresuid(uid, euid, euid_), "cannot take the ids of the owner of a file");
    changed_ = true;
  }
  BorrowedIds(const BorrowedIds&) = delete;
  BorrowedIds& operator=(const BorrowedIds&) = delete;
  ~BorrowedIds() {
    if (!changed_) return;
    thread_setresuid(static_cast<uid_t>(-1), euid_, static_cast<uid_t>(-1));  // first the privilege to set the rest
    thread_setresuid(uid_, euid_, saved_);
    // A change of the effective id clears the dumpable flag of the whole process (O-26); 2 cannot be set.
    if (dumpable_ == 1) ::prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
  }

 private:
  uid_t uid_ = 0, euid_ = 0, saved_ = 0;
  int dumpable_ = 0;
  bool changed_ = false;
};

// The caller's terminal among its standard descriptors; -1: none.
int standard_terminal() {
  for (int fd = 0; fd <= 2; ++fd)
    if (::isatty(fd) == 1) return fd;
  return -1;
}

Fd controlling_terminal(int flags) {
  return Fd(::open("/dev/tty", flags | O_NOCTTY | O_CLOEXEC));
}

Error no_terminal(int error_number) {
  return Error(Reason::TERMINAL_MISSING, "the saved tasks used the terminal of their caller, and this one has none")
      .error_number(error_number)
      .remedy("run the restore from a terminal, with it as standard input, output or error");
}

}  // namespace

const KernelMemory& DumpFiles::kernel_memory() {
  if (!kernel_memory_) kernel_memory_ = open_ring_memory();
  if (kernel_memory_) return *kernel_memory_;
  throw Error(Reason::FEATURE_MISSING, "what the kernel alone knows of a ring of io_uring cannot be read")
      .remedy(
          "give this program CAP_BPF and CAP_PERFMON, on a kernel with CONFIG_BPF_SYSCALL and CONFIG_DEBUG_INFO_BTF");
}

bool FileView::path_only() const noexcept {
  return (flags & O_PATH) != 0;
}

std::string FileView::who() const {
  if (number < 0) return fmt::format("{}, mapped by {}", link, owner);
  return fmt::format("fd {} ({}) of {}", number, link, owner);
}

Error FileView::failed(std::string what_failed, int error_number) const {
  return Error(Reason::SYSTEM, std::move(what_failed)).object(who()).error_number(error_number);
}

bool DumpFiles::is_external(std::string_view key) const {
  return std::ranges::find(options_.external, key) != options_.external.end();
}

int RestoreFiles::inherited(std::string_view key) const {
  const auto found = std::ranges::find(options_.inherit_fd, key, &InheritedFd::key);
  return found == options_.inherit_fd.end() ? -1 : found->fd;
}

void RestoreFiles::require_caller_terminal() const {
  if (standard_terminal() >= 0) return;
  if (!controlling_terminal(O_RDWR)) throw no_terminal(errno);
}

Fd RestoreFiles::open_caller_terminal(uint32_t flags) const {
  const int standard = standard_terminal();
  if (standard < 0) {
    Fd out = controlling_terminal(reopen_flags(flags));
    if (!out) throw no_terminal(errno);
    return out;
  }
  Fd out = reopen(standard, reopen_flags(flags));
  if (!out) {
    throw Error(Reason::TERMINAL_MISSING, "the terminal of the caller cannot be opened")
        .object(fmt::format("fd {}", standard))
        .error_number(errno)
        .remedy("check the permissions of the terminal device");
  }
  return out;
}

FileOwner dump_file_owner(const FileView& view, const DumpFiles& files) {
  FileOwner owner;
  if (view.path_only()) return owner;  // EBADF for every call below (open(2), O_PATH)
  f_owner_ex ex{};
  const int signal = ::fcntl(view.fd, F_GETSIG);
  if (signal < 0 || ::fcntl(view.fd, F_GETOWN_EX, &ex) < 0)
    throw Error(Reason::SYSTEM, "cannot read who gets the signals of a file").object(view.who()).error_number(errno);
  owner.signal = static_cast<uint32_t>(signal);
  if (ex.pid == 0) return owner;
  uint32_t uids[2] = {0, 0};
  if (::fcntl(view.fd, uapi::f_getowner_uids, uids) < 0)
    throw Error(Reason::FEATURE_MISSING, "cannot read with whose rights the signals of a file are sent")
        .object(view.who())
        .error_number(errno)
        .remedy("use a kernel built with CONFIG_CHECKPOINT_RESTORE");
  owner.uid = uids[0];
  owner.euid = uids[1];
  owner.type = static_cast<uint32_t>(ex.type);
  owner.pid = files.inner_pid(ex.pid);
  return owner;
}

void encode_file_owner(const FileOwner& owner, pb::fown_entry& out) {
  out.set_uid(owner.uid);
  out.set_euid(owner.euid);
  out.set_signum(owner.signal);
  out.set_pid_type(owner.type);
  out.set_pid(static_cast<uint32_t>(owner.pid));
}

FileOwner decode_file_owner(const pb::fown_entry& in) {
  FileOwner owner;
  owner.uid = in.uid();
  owner.euid = in.euid();
  owner.signal = in.signum();
  owner.type = in.pid_type();
  owner.pid = static_cast<pid_t>(in.pid());
  if (owner.type > F_OWNER_PGRP || owner.signal > 64 || owner.pid < 0)
    throw Error(Reason::IMAGE_CORRUPT, "a file has an impossible owner");
  return owner;
}

void restore_file_owner(const FileOwner& owner, int fd, const RestoreFiles& files, std::string_view what) {
  if (owner.signal != 0 && ::fcntl(fd, F_SETSIG, static_cast<int>(owner.signal)) < 0)
    throw Error(Reason::RESTORE_CALL_FAILED, "cannot set the signal of a file")
        .object(std::string(what))
        .error_number(errno);
  if (owner.pid == 0) return;
  f_owner_ex ex{};
  ex.type = static_cast<decltype(ex.type)>(owner.type);
  ex.pid = files.outer_pid(owner.pid);
  // The kernel keeps the ids of who calls, and later checks them against the receiver of the signal (O-26).
  const BorrowedIds ids(owner.uid, owner.euid);
  if (::fcntl(fd, F_SETOWN_EX, &ex) < 0)
    throw Error(Reason::RESTORE_CALL_FAILED,
                fmt::format("cannot make {} {} the receiver of the signals of a file",
                            owner.type == F_OWNER_PGRP ? "process group" : "task", owner.pid))
        .object(std::string(what))
        .error_number(errno);
}

std::string own_fdinfo(int fd) {
  return std::string(ProcDir(::getpid()).read(fmt::format("fdinfo/{}", fd).c_str()));
}

std::optional<uint64_t> fdinfo_number(std::string_view fdinfo, std::string_view name, int base) {
  const std::string key = fmt::format("\n{}:", name);
  const size_t at = fdinfo.find(key);
  if (at == std::string_view::npos) return std::nullopt;
  std::string_view text = fdinfo.substr(at + key.size());
  text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
  uint64_t value = 0;
  if (std::from_chars(text.data(), text.data() + text.size(), value, base).ec != std::errc()) return std::nullopt;
  return value;
}

void restore_status_flags(int fd, uint32_t saved, std::string_view what) {
  constexpr uint32_t kSettable = O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME;
  if ((saved & kSettable) == 0 || ::fcntl(fd, F_SETFL, static_cast<int>(saved & kSettable)) == 0) return;
  throw Error(Reason::RESTORE_CALL_FAILED, "cannot set the flags of an open file")
      .object(std::string(what))
      .error_number(errno);
}

int reopen_flags(uint32_t saved) {
  if ((saved & tmpfile_bit) != 0) saved &= ~static_cast<uint32_t>(O_TMPFILE);
  // O_ASYNC has no effect in open(2): fcntl sets it, in the task, because the kernel then keeps the number it was
  // called with for siginfo (si_fd).
  saved &= ~static_cast<uint32_t>(O_CREAT | O_EXCL | O_TRUNC | O_ASYNC | exec_bit);
  return static_cast<int>(saved) | O_NOCTTY | O_CLOEXEC;
}

Fd reopen(int fd, int flags) {
  char path[32];
  *fmt::format_to_n(path, sizeof path - 1, "/proc/self/fd/{}", fd).out = '\0';
  return Fd(::open(path, flags));
}

}  // namespace stasis
