// When threads began to wait in calls with a limit. The kernel tells it of a thread that sleeps (se.exec_start of
// /proc/PID/sched), not any more of one that was woken by being stopped: so it is asked before the freeze. Owns plain
// data; asking is safe from several threads.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <span>
#include <unordered_map>

#include "kernel/proc.h"

namespace stasis {

class WaitBegins {
 public:
  // While the tasks run: costs them nothing. Tasks that have just gone are left out.
  void sample(std::span<const pid_t> pids);

  // How long a stopped thread, in which nothing has run since, has waited by now in the call that it was stopped in.
  // Nothing if it was in no call with a limit, or has begun its wait since. Makes no system call but for the time.
  std::optional<uint64_t> waited_ns(pid_t tid, uint64_t voluntary_switches) const;

 private:
  struct Begin {
    uint64_t slept_at_ns = 0;  // first by the clock of the processor, then CLOCK_MONOTONIC
    uint64_t voluntary_switches = 0;
    int processor = 0;
  };
  void find(pid_t pid);
  void convert_clocks();

  std::unordered_map<pid_t, Begin> begins_;  // by thread
};

}  // namespace stasis
