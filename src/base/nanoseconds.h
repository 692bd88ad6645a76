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

}  // namespace stasis
