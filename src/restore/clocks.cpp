#include "restore/clocks.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <unistd.h>

#include <cerrno>

#include "base/error.h"
#include "base/log.h"
#include "base/nanoseconds.h"
#include "kernel/proc.h"
#include "kernel/uapi.h"

namespace stasis {

namespace {

using Nanoseconds = __int128;
constexpr Nanoseconds kSecond = 1'000'000'000;

Nanoseconds saved_time(const pb::timespec& t) {
  return Nanoseconds{static_cast<int64_t>(t.tv_sec())} * kSecond + static_cast<int64_t>(t.tv_nsec());
}

Nanoseconds offset(const ClockOffset& o) {
  return Nanoseconds{o.seconds} * kSecond + o.nanoseconds;
}

// "SECONDS NANOSECONDS" with the nanoseconds never negative, as the kernel wants them.
std::string text(const char* clock, Nanoseconds t) {
  Nanoseconds seconds = t / kSecond, rest = t % kSecond;
  if (rest < 0) {
    rest += kSecond;
    --seconds;
  }
  return fmt::format("{} {} {}\n", clock, static_cast<int64_t>(seconds), static_cast<int64_t>(rest));
}

}  // namespace

uint64_t RestoredClocks::went_on_ns() const {
  return now_ns(CLOCK_MONOTONIC) - since_ns;
}

ClocksOfChildren::ClocksOfChildren(const pb::timens_entry& saved) {
  // Offsets count from the initial time namespace, wherever this program runs.
  ProcDir self(getpid());
  const TimeNsOffsets own = parse_timens_offsets(self.read("timens_offsets"));
  original_.reset(check(open("/proc/self/ns/time", O_RDONLY | O_CLOEXEC), "cannot open the time namespace"));
  if (unshare(static_cast<int>(uapi::clone_newtime)) != 0)
    throw Error(errno == EPERM ? Reason::NO_PRIVILEGE : Reason::FEATURE_MISSING, "cannot make a time namespace")
        .error_number(errno)
        .remedy("run as root on a kernel with time namespaces, or let clocks jump with --no-timens");
  const ClockReading now = read_clocks();
  const Nanoseconds monotonic = saved_time(saved.monotonic()) - (now.monotonic_ns - offset(own.monotonic));
  const Nanoseconds boottime = saved_time(saved.boottime()) - (now.boottime_ns - offset(own.boottime));
  clocks_ = {.monotonic_ns = static_cast<uint64_t>(saved_time(saved.monotonic())),
             .boottime_ns = static_cast<uint64_t>(saved_time(saved.boottime())),
             .since_ns = now.monotonic_ns};
  self.write("timens_offsets", text("monotonic", monotonic) + text("boottime", boottime));
}

ClocksOfChildren::~ClocksOfChildren() {
  if (original_ && setns(original_.get(), static_cast<int>(uapi::clone_newtime)) != 0)
    log_info("The time namespace of children stays the new one: {}", errno_text(errno));
}

}  // namespace stasis
