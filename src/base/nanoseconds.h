// Times as one number: nanoseconds, unsigned, 584 years.
#pragma once

#include <time.h>

#include <cstdint>

namespace stasis {

inline constexpr uint64_t kSecond_ns = 1'000'000'000, kMillisecond_ns = 1'000'000;

// Of a time that is not negative.
constexpr uint64_t nanoseconds(const timespec& t) {
  return static_cast<uint64_t>(t.tv_sec) * kSecond_ns + static_cast<uint64_t>(t.tv_nsec);
}

constexpr timespec to_timespec(uint64_t ns) {
  return {.tv_sec = static_cast<time_t>(ns / kSecond_ns), .tv_nsec = static_cast<long>(ns % kSecond_ns)};
}

// What a clock reads (clock_gettime(2)), in the time namespace of this program.
inline uint64_t now_ns(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return nanoseconds(now);
}

// Reads something at one moment, to some microseconds, and returns that moment (CLOCK_MONOTONIC): `read` is called
// again when this program has lost its processor meanwhile.
template <class Read>
uint64_t moment_of(Read&& read) {
  constexpr int kMostTries = 10;
  constexpr uint64_t kShort_ns = 20'000;
  for (int tries = 1;; ++tries) {
    const uint64_t before = now_ns(CLOCK_MONOTONIC);
    read();
    if (tries == kMostTries || now_ns(CLOCK_MONOTONIC) - before <= kShort_ns) return before;
  }
}

// Both clocks at one moment.
struct ClockReading {
  uint64_t monotonic_ns = 0, boottime_ns = 0;
};
inline ClockReading read_clocks() {
  ClockReading out;
  out.monotonic_ns = moment_of([&] { out.boottime_ns = now_ns(CLOCK_BOOTTIME); });
  return out;
}

}  // namespace stasis
