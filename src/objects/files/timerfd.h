// timerfd_create(2): a clock, the time that is left and the interval, how it was set, and expiries that nobody has
// read.
//
// What is left counts from the moment at which the clocks of the image were read. A timer that was set to a time of the
// real-time clock (TFD_TIMER_ABSTIME) goes off at that time, however late the restore is.
#pragma once

#include <optional>

#include "objects/files/file_kind.h"

namespace stasis {

struct TimerFd {
  static constexpr std::string_view name = "timerfd";
  static constexpr pb::fd_types type = pb::TIMERFD;
  struct State {
    uint32_t id = 0;
    uint32_t flags = 0;
    FileOwner owner;
    int clock = 0;
    uint32_t set_flags = 0;  // TFD_TIMER_ABSTIME, TFD_TIMER_CANCEL_ON_SET
    uint64_t ticks = 0;
    uint64_t left_ns = 0;  // 0: it is not armed
    uint64_t interval_ns = 0;
    std::optional<uint64_t> expires_at_ns;  // of the real-time clock

    bool operator==(const State&) const = default;
  };
  struct Shared {};

  static bool match(const FileView& view);
  static void dump(const FileView& view, DumpFiles& files, Shared& shared, State& state);
  static void encode(const State& state, pb::file_entry& out);
  static void decode(const pb::file_entry& in, State& state);
  static void encode_extension(const State& state, pb::extension_file& out);
  static void decode_extension(const pb::extension_file& in, State& state);
  static Fd create(const State& state, RestoreFiles& files, Shared& shared);
  static void finish(const State& state, int fd, RestoreFiles& files, Shared& shared);
};

}  // namespace stasis
