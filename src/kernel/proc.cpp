#include "kernel/proc.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "kernel/proc_text.h"

namespace stasis {

namespace proc_text {

void bad(std::string_view file, std::string_view why, std::string_view sample, SourcePlace place) {
  constexpr size_t longest = 60;
  std::string shown(sample.substr(0, longest));
  for (char& c : shown)
    if (static_cast<unsigned char>(c) < ' ') c = ' ';
  throw Error(
      Reason::PROC_TEXT,
      fmt::format("cannot understand {}: {} in \"{}{}\"", file, why, shown, sample.size() > longest ? "..." : ""),
      place);
}

}  // namespace proc_text

namespace {

constexpr size_t kFirstCapacity = size_t{16} << 10;

void need_capacity(ProcBuffer& buffer, size_t bytes) {
  if (buffer.capacity >= std::max(bytes, kFirstCapacity)) return;
  buffer.capacity = std::max(bytes, kFirstCapacity);
  buffer.bytes = std::make_unique_for_overwrite<char[]>(buffer.capacity);
}

// Keeps the first `used` bytes.
void grow(ProcBuffer& buffer, size_t used) {
  auto bigger = std::make_unique_for_overwrite<char[]>(buffer.capacity * 4);
  std::memcpy(bigger.get(), buffer.bytes.get(), used);
  buffer.bytes = std::move(bigger);
  buffer.capacity *= 4;
}

// /proc, or another proc file system, mounted nowhere, if that one lists tasks by the pids of another namespace.
Fd open_own_proc() {
  Fd proc(::open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC));
  char self[16] = {};
  if (!proc || ::readlinkat(proc.get(), "self", self, sizeof self - 1) < 0)
    throw Error(Reason::SYSTEM, "cannot use /proc").error_number(errno).remedy("mount it");
  if (proc_text::whole_number<pid_t>(self) == ::getpid()) return proc;
  const Fd context(::fsopen("proc", FSOPEN_CLOEXEC));
  if (context && ::fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) == 0)
    proc.reset(::fsmount(context.get(), FSMOUNT_CLOEXEC, 0));
  else
    proc.reset();
  if (!proc)
    throw Error(Reason::SYSTEM, "/proc belongs to another pid namespace, and no other one can be made")
        .error_number(errno)
        .remedy("mount the /proc of this pid namespace");
  return proc;
}

// For each thread, as the first to ask would have to be waited for; and again behind a fork into a pid namespace.
int own_proc() {
  thread_local Fd proc;
  thread_local pid_t opened_by = 0;
  if (const pid_t now = ::getpid(); opened_by != now) {
    proc = open_own_proc();
    opened_by = now;
  }
  return proc.get();
}

// ESRCH: the task was reaped between the look-up of its directory and the opening.
bool is_gone(int error_number) {
  return error_number == ENOENT || error_number == ESRCH;
}

Fd open_below_proc(const char* path) {
  return Fd(::openat(own_proc(), path, O_DIRECTORY | O_RDONLY | O_CLOEXEC));
}

}  // namespace

ProcDir::ProcDir(pid_t pid) : pid_(pid) {
  dir_ = open_below_proc(fmt::format("{}", pid).c_str());
  if (dir_) return;
  if (is_gone(errno)) throw Error(Reason::NO_SUCH_TASK, "there is no such task").object(describe());
  throw Error(Reason::SYSTEM, fmt::format("cannot open /proc/{}", pid)).error_number(errno).object(describe());
}

ProcDir ProcDir::of_thread(pid_t pid, pid_t tid) {
  const std::string path = fmt::format("{}/task/{}", pid, tid);
  ProcDir out(open_below_proc(path.c_str()), pid, tid);
  if (out.dir_) return out;
  if (is_gone(errno)) throw Error(Reason::NO_SUCH_TASK, "there is no such thread").object(out.describe());
  throw Error(Reason::SYSTEM, fmt::format("cannot open /proc/{}", path)).error_number(errno).object(out.describe());
}

ProcDir ProcDir::thread(pid_t tid) const {
  char path[32];
  std::snprintf(path, sizeof path, "task/%d", tid);
  ProcDir out(Fd(::openat(dir_.get(), path, O_DIRECTORY | O_RDONLY | O_CLOEXEC)), pid_, tid);
  if (out.dir_) return out;
  if (is_gone(errno))
    throw Error(Reason::TASK_VANISHED, "the thread ended while it was looked at").object(out.describe());
  throw Error(Reason::SYSTEM, fmt::format("cannot open {}", path)).error_number(errno).object(out.describe());
}

std::string ProcDir::describe() const {
  return tid_ == 0 ? fmt::format("pid {}", pid_) : fmt::format("thread {} of pid {}", tid_, pid_);
}

bool ProcDir::task_exists() const noexcept {
  // Entries of a reaped task's directory cannot be looked up any more (ENOENT, ESRCH); a zombie's can.
  struct stat ignored;
  return ::fstatat(dir_.get(), "stat", &ignored, 0) == 0;
}

void ProcDir::fail(const char* name, const char* what_failed, int error_number) const {
  if (is_gone(error_number) && !task_exists())
    throw Error(Reason::TASK_VANISHED, "the task ended while it was looked at").object(describe());
  throw Error(Reason::SYSTEM, fmt::format("cannot {} /proc/{}/{}", what_failed, tid_ == 0 ? pid_ : tid_, name))
      .error_number(error_number)
      .object(describe());
}

void ProcDir::prefetch(std::span<const char* const> names, ProcBuffer& buffer) {
  for (const char* name : names) {
    const ssize_t got = slurp(name, buffer);
    prefetched_.push_back(
        {name, got, got > 0 ? std::string(buffer.bytes.get(), static_cast<size_t>(got)) : std::string()});
  }
}

void ProcDir::warm(std::span<const char* const> names) const noexcept {
  struct stat ignored;
  for (const char* name : names) (void)::fstatat(dir_.get(), name, &ignored, AT_SYMLINK_NOFOLLOW);
}

std::optional<ssize_t> ProcDir::take_prefetched(const char* name, ProcBuffer& buffer) {
  for (auto it = prefetched_.begin(); it != prefetched_.end(); ++it) {
    if (std::strcmp(it->name, name) != 0) continue;
    const ssize_t result = it->result;
    need_capacity(buffer, it->text.size());
    std::memcpy(buffer.bytes.get(), it->text.data(), it->text.size());
    prefetched_.erase(it);
    return result;
  }
  return std::nullopt;
}

ssize_t ProcDir::slurp(const char* name, ProcBuffer& buffer) {
  if (const auto ready = take_prefetched(name, buffer)) return *ready;
  const Fd file(::openat(dir_.get(), name, O_RDONLY | O_CLOEXEC));
  if (!file) return -errno;
  need_capacity(buffer, 0);
  size_t used = 0;
  for (;;) {
    if (buffer.capacity - used < buffer.capacity / 4) grow(buffer, used);
    // A short read says nothing: files of many records return a page at a time (seq_file). Only 0 is the end.
    const ssize_t got = ::read(file.get(), buffer.bytes.get() + used, buffer.capacity - used);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return -errno;
    if (got == 0) return static_cast<ssize_t>(used);
    used += static_cast<size_t>(got);
  }
}

std::string_view ProcDir::read(const char* name, ProcBuffer& buffer) {
  const ssize_t got = slurp(name, buffer);
  if (got < 0) fail(name, "read", static_cast<int>(-got));
  return {buffer.bytes.get(), static_cast<size_t>(got)};
}

std::optional<std::string_view> ProcDir::try_read(const char* name) {
  const ssize_t got = slurp(name, buffer_);
  if (got == -ENOENT && task_exists()) return std::nullopt;
  if (got < 0) fail(name, "read", static_cast<int>(-got));
  return std::string_view(buffer_.bytes.get(), static_cast<size_t>(got));
}

std::span<const std::byte> ProcDir::read_bytes(const char* name) {
  return std::as_bytes(std::span(read(name)));
}

std::optional<std::string> ProcDir::readlink(const char* name) const {
  // Links of /proc may be as long as a path: PATH_MAX, plus " (deleted)".
  char target[4096 + 16];
  const ssize_t got = ::readlinkat(dir_.get(), name, target, sizeof target);
  if (got >= 0) return std::string(target, static_cast<size_t>(got));
  const int error_number = errno;
  if (error_number == ENOENT && task_exists()) return std::nullopt;
  fail(name, "read the link", error_number);
}

Fd ProcDir::open(const char* name, int flags) const {
  Fd file(::openat(dir_.get(), name, flags | O_CLOEXEC));
  if (!file) fail(name, "open", errno);
  return file;
}

void ProcDir::write(const char* name, std::string_view text) const {
  const Fd file = open(name, O_WRONLY);
  const ssize_t put = ::write(file.get(), text.data(), text.size());
  if (put < 0) fail(name, "write", errno);
  if (static_cast<size_t>(put) != text.size()) fail(name, "write all of", EIO);
}

std::vector<int> ProcDir::list(const char* name) const {
  const Fd directory = open(name, O_RDONLY | O_DIRECTORY);
  try {
    return list_numeric_entries(directory.get());
  } catch (Error& error) {
    if (error.error_number() == ENOENT || error.error_number() == ESRCH) fail(name, "list", error.error_number());
    error.default_object(describe());
    throw;
  }
}

std::vector<int> list_numeric_entries(int directory_fd) {
  std::vector<int> out;
  // getdents64 directly: readdir's 32 KiB buffer is allocated per directory, and 1000 entries fit in this one.
  alignas(dirent64) char buffer[32 * 1024];
  if (::lseek(directory_fd, 0, SEEK_SET) < 0) throw_errno("cannot rewind a directory");
  for (;;) {
    const long got = ::syscall(SYS_getdents64, directory_fd, buffer, sizeof buffer);
    if (got < 0) throw_errno("cannot list a directory");
    if (got == 0) break;
    for (long at = 0; at < got;) {
      unsigned short record_bytes = 0;
      std::memcpy(&record_bytes, buffer + at + offsetof(dirent64, d_reclen), sizeof record_bytes);
      const char* name = buffer + at + offsetof(dirent64, d_name);
      if (const auto number = proc_text::whole_number<int>(name)) out.push_back(*number);
      at += record_bytes;
    }
  }
  // The kernel lists threads in creation order.
  if (!std::ranges::is_sorted(out)) std::ranges::sort(out);
  return out;
}

std::string read_system_file(const char* name) {
  const std::string path = std::string("/proc/") + name;
  const auto fail = [&path] { throw Error(Reason::SYSTEM, "cannot read the file").object(path).error_number(errno); };
  const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) fail();
  std::string text;
  size_t used = 0;
  for (;;) {
    text.resize(std::max<size_t>(2 * used, 16384));
    const ssize_t got = ::read(file.get(), text.data() + used, text.size() - used);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail();
    used += static_cast<size_t>(got);
    if (got == 0) break;
  }
  text.resize(used);
  return text;
}

}  // namespace stasis
