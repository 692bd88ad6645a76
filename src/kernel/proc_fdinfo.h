// Text of /proc/PID/fdinfo/N and of /proc/locks.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <limits>
#include <optional>
#include <string_view>
#include <vector>

namespace stasis {

struct FileLock {
  enum class Kind { flock, posix, ofd, lease, delegation, layout, access, unknown };
  enum class Type { read, write, none, unknown };
  static constexpr uint64_t kToEnd = std::numeric_limits<uint64_t>::max();

  uint64_t id = 0;
  bool waiting = false;  // a "->" line: blocked behind the lock of the same id
  Kind kind = Kind::unknown;
  // MANDATORY or ADVISORY for locks; ACTIVE, BREAKING or BREAKER for leases.
  std::string_view mode;
  Type type = Type::unknown;
  pid_t pid = 0;  // -1 for OFD locks, 0 when the owner is outside the reader's pid namespace
  uint32_t dev_major = 0, dev_minor = 0;
  uint64_t inode = 0;
  uint64_t start = 0;
  uint64_t end = kToEnd;  // inclusive, kToEnd for EOF
};

// One line of /proc/locks, or what follows "lock:" in fdinfo. `mode` points into the line.
FileLock parse_lock_line(std::string_view line);
// The whole of /proc/locks; views point into the text.
std::vector<FileLock> parse_locks(std::string_view text);

// Views point into the text that was parsed: keep that alive, or copy.
struct FdInfo {
  uint64_t pos = 0;
  uint32_t flags = 0;  // open flags, O_CLOEXEC included when set on the descriptor
  int mnt_id = -1;
  std::optional<uint64_t> inode;  // "ino:", 5.14
  // What follows "lock:".
  std::vector<std::string_view> locks;
  // Every other line, as it is: the part that belongs to the kind of file.
  std::string_view rest;

  // Value of the first line "KEY: value" in rest, trimmed; key without colon ("eventfd-count").
  std::optional<std::string_view> value(std::string_view key) const noexcept;
  // The same as a number; nothing when absent or not a number.
  std::optional<uint64_t> number(std::string_view key, int base = 10) const noexcept;
  // Calls f(line) for each line of rest that starts with `prefix` ("tfd:", "inotify ").
  template <class F>
  void each_line(std::string_view prefix, F&& f) const;
};

FdInfo parse_fdinfo(std::string_view text);

template <class F>
void FdInfo::each_line(std::string_view prefix, F&& f) const {
  std::string_view left = rest;
  while (!left.empty()) {
    const size_t end = left.find('\n');
    const std::string_view line = left.substr(0, end);
    left.remove_prefix(end == std::string_view::npos ? left.size() : end + 1);
    if (line.starts_with(prefix)) f(line);
  }
}

}  // namespace stasis
