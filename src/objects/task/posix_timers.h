// POSIX timers of a process (timer_create(2)), with their ids.
#pragma once

#include <cstdint>
#include <vector>

#include "base/nanoseconds.h"
#include "objects/task_object.h"

namespace stasis {

struct PosixTimers {
  static constexpr std::string_view name = "POSIX timers";
  static constexpr Scope scope = Scope::process;
  static constexpr const char* proc_files[] = {"timers"};
  struct Times {  // struct itimerspec of a 64-bit machine
    uint64_t interval_s = 0, interval_ns = 0, value_s = 0, value_ns = 0;
    bool runs() const { return (value_s | value_ns) != 0; }
    uint64_t left_ns() const { return value_s * kSecond_ns + value_ns; }
    void set_left_ns(uint64_t ns) { value_s = ns / kSecond_ns, value_ns = ns % kSecond_ns; }
  };
  struct Timer {
    int id = 0;
    int clock_id = 0;
    int signal = 0;
    int notify = 0;  // SIGEV_*
    uint64_t value = 0;
    int thread = 0;  // for SIGEV_THREAD_ID: the receiver, as the task knows it
    uint32_t overrun = 0;
    Times times;
    bool measures_cpu_time() const { return clock_id < 0; }  // as /proc shows these clocks
  };
  struct State {
    std::vector<Timer> timers;  // by ascending id
    // Dump: the task lost its processor between a timer and the clock that tells when it was asked.
    bool interrupted = false;
    unsigned tries = 0;
  };
  struct Ask {
    struct One {
      BatchData times, now;  // `now`: struct timespec
      SyscallBatch::Call overrun;
    };
    BatchData begin;  // struct timespec
    std::vector<One> timers;
    std::optional<uint64_t> monotonic_ns;  // as the image has it
  };
  static void look(const LookView& view, State& state);
  static void ask(const LookView& view, SyscallBatch& batch, Ask& ask, State& state);
  static void answer(const SyscallBatch& batch, const Ask& ask, State& state);
  static bool asks_again(const State& state);
  static void encode(const State& state, pb::core_entry& core);
  static void decode(const pb::core_entry& core, State& state);
  static void settle(const State& state, const SettleView& view, SyscallBatch& batch);
  static void arm(const State& state, const SettleView& view, SyscallBatch& batch);
};

// The calls that create timers: with the ids asked for (Linux 6.15), or by counting up to them.
void create_posix_timers(const PosixTimers::State& state, bool kernel_takes_ids, SyscallBatch& batch);

}  // namespace stasis
