// /proc/PID: reading its files, and (through the headers below) understanding their text.
//
// Parsers do no I/O: they take the text as std::string_view and throw Error(PROC_TEXT) when it is not what the kernel
// writes. Unknown lines are skipped, fields of newer kernels are optional.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "kernel/proc_fdinfo.h"
#include "kernel/proc_maps.h"
#include "kernel/proc_misc.h"
#include "kernel/proc_mounts.h"
#include "kernel/proc_task.h"

namespace stasis {

// Memory that files are read into. Touching fresh memory costs more than reading most files: what reads those of many
// tasks hands the same buffer to all of them.
struct ProcBuffer {
  std::unique_ptr<char[]> bytes;
  size_t capacity = 0;
};

// An open /proc/PID or /proc/PID/task/TID. The directory stays bound to that very task: after its death every access
// says so, even when the number is used again. One object belongs to one thread at a time.
class ProcDir {
 public:
  // Throws NO_SUCH_TASK.
  explicit ProcDir(pid_t pid);
  static ProcDir of_thread(pid_t pid, pid_t tid);
  // task/TID below this directory. Throws TASK_VANISHED.
  ProcDir thread(pid_t tid) const;

  ProcDir(ProcDir&&) noexcept = default;
  ProcDir& operator=(ProcDir&&) noexcept = default;

  // The whole file `name` ("stat", "fdinfo/3"), in a buffer that the object reuses: the view ends with the next read().
  // Throws TASK_VANISHED when the task is gone, SYSTEM for anything else (a file this kernel lacks too).
  std::string_view read(const char* name) { return read(name, buffer_); }
  // The same into a buffer of the caller: the view ends with its next use.
  std::string_view read(const char* name, ProcBuffer& buffer);
  // Nothing when the file does not exist although the task does (a closed fd, a kernel without the feature).
  std::optional<std::string_view> try_read(const char* name);
  // Reads files now, so that the next read() or try_read() of each finds it in memory: once, and possibly in another
  // thread than this call. A file that cannot be read fails when it is asked for.
  void prefetch(std::span<const char* const> names, ProcBuffer& buffer);
  // Makes the kernel build the entries of files that will be read: the first look-up of a name costs more than reading.
  void warm(std::span<const char* const> names) const noexcept;
  // Bytes of a binary file ("auxv").
  std::span<const std::byte> read_bytes(const char* name);
  // Nothing when there is no such link ("exe" of a kernel thread, a closed fd).
  std::optional<std::string> readlink(const char* name) const;
  // A descriptor of `name` with the given open flags (O_CLOEXEC is added).
  Fd open(const char* name, int flags) const;
  // Writes `text` to `name` in one call ("oom_score_adj").
  void write(const char* name, std::string_view text) const;

  // Numbers of the entries of a subdirectory ("task", "fd"), ascending.
  std::vector<int> list(const char* name) const;
  std::vector<pid_t> threads() const { return list("task"); }
  std::vector<int> fds() const { return list("fd"); }

  int fd() const noexcept { return dir_.get(); }
  pid_t pid() const noexcept { return pid_; }
  // "pid 42" or "thread 43 of pid 42", for messages.
  std::string describe() const;

 private:
  ProcDir(Fd dir, pid_t pid, pid_t tid) : dir_(std::move(dir)), pid_(pid), tid_(tid) {}
  [[noreturn]] void fail(const char* name, const char* what_failed, int error_number) const;
  bool task_exists() const noexcept;
  // Bytes read, or negative errno.
  ssize_t slurp(const char* name, ProcBuffer& buffer);
  // A prefetched file, into the buffer; nothing if it is none.
  std::optional<ssize_t> take_prefetched(const char* name, ProcBuffer& buffer);

  Fd dir_;
  pid_t pid_ = 0;
  pid_t tid_ = 0;  // 0: the process directory
  ProcBuffer buffer_;
  struct Prefetched {
    const char* name;
    ssize_t result;  // as of slurp()
    std::string text;
  };
  std::vector<Prefetched> prefetched_;
};

// The whole file `name` of /proc that belongs to no task ("locks", "sys/fs/suid_dumpable"). Throws SYSTEM.
std::string read_system_file(const char* name);
// Numeric names of an open directory, ascending. Reads from the start of the directory.
std::vector<int> list_numeric_entries(int directory_fd);

}  // namespace stasis
