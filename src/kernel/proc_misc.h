// Small files of /proc/PID: timers, children, namespaces' id maps and clocks, auxv, single numbers.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace stasis {

// One timer of /proc/PID/timers. The file shows no times: those come from inside the task.
struct PosixTimer {
  enum class Notify { signal, none, thread };

  int id = 0;
  int signo = 0;
  uint64_t sigval = 0;
  Notify notify = Notify::signal;
  bool thread_directed = false;  // SIGEV_THREAD_ID: `target` is a tid
  pid_t target = 0;
  int clock_id = 0;  // -6 process CPU time, -2 thread CPU time: timer_create accepts both
};

// In the order of the file: newest first.
std::vector<PosixTimer> parse_timers(std::string_view text);

// /proc/PID/task/TID/children
std::vector<pid_t> parse_children(std::string_view text);

struct ClockOffset {
  int64_t seconds = 0;
  int64_t nanoseconds = 0;
};
struct TimeNsOffsets {
  ClockOffset monotonic;
  ClockOffset boottime;
};
TimeNsOffsets parse_timens_offsets(std::string_view text);

// /proc/PID/uid_map, gid_map
struct IdMapEntry {
  uint32_t inside = 0;
  uint32_t outside = 0;
  uint32_t count = 0;
};
std::vector<IdMapEntry> parse_id_map(std::string_view text);

// /proc/PID/auxv. The entry that ends the vector (AT_NULL) and what follows it are not included.
struct AuxEntry {
  uint64_t type = 0;
  uint64_t value = 0;
};
std::vector<AuxEntry> parse_auxv(std::span<const std::byte> bytes);

// Files with one number.
uint32_t parse_loginuid(std::string_view text);         // 4294967295: unset
int parse_oom_score_adj(std::string_view text);         // -1000 .. 1000
uint32_t parse_coredump_filter(std::string_view text);  // hexadecimal
// The nice value of /proc/PID/autogroup; nothing when the task is in none.
std::optional<int> parse_autogroup_nice(std::string_view text);

}  // namespace stasis
