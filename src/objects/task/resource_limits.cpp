#include "objects/task/resource_limits.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>

#include "base/error.h"
#include "kernel/process.h"

namespace stasis {

namespace {

using Limit = ResourceLimits::Limit;
static_assert(sizeof(Limit) == sizeof(rlimit64) && RLIM_NLIMITS == ResourceLimits::kLimits);

constexpr std::string_view kNames[] = {"CPU",      "FSIZE",  "DATA",    "STACK", "CORE",  "RSS",
                                       "NPROC",    "NOFILE", "MEMLOCK", "AS",    "LOCKS", "SIGPENDING",
                                       "MSGQUEUE", "NICE",   "RTPRIO",  "RTTIME"};
static_assert(std::size(kNames) == ResourceLimits::kLimits);

std::string text(uint64_t value) {
  return value == ~uint64_t{0} ? "unlimited" : fmt::format("{}", value);
}

[[noreturn]] void cannot_set(size_t resource, const Limit& present, const Limit& wanted, int error_number,
                             const std::string& who) {
  const bool raise = wanted.hard > present.hard;
  Error error = Error(error_number == EPERM ? Reason::NO_PRIVILEGE : Reason::RESTORE_CALL_FAILED,
                      raise ? fmt::format("the hard limit RLIMIT_{} cannot be raised from {} to {}", kNames[resource],
                                          text(present.hard), text(wanted.hard))
                            : fmt::format("the limit RLIMIT_{} cannot be set", kNames[resource]))
                    .object(who)
                    .error_number(error_number);
  if (raise && error_number == EPERM) {
    const char* nofile = resource == RLIMIT_NOFILE ? "; it cannot exceed the sysctl fs.nr_open either" : "";
    error.default_remedy(
        fmt::format("run the restore with CAP_SYS_RESOURCE, or raise the limit of the shell that starts it{}", nofile));
  }
  throw error;
}

}  // namespace

void ResourceLimits::ask(const LookView&, SyscallBatch& batch, Ask& ask, State& state) {
  ask.limits = batch.space(sizeof state.limits);
  for (size_t i = 0; i < kLimits; ++i)
    batch.must(SYS_prlimit64, {0, i, nullptr, ask.limits.part(i * sizeof(Limit), sizeof(Limit))});
}

void ResourceLimits::answer(const SyscallBatch& batch, const Ask& ask, State& state) {
  state.limits = batch.value<decltype(state.limits)>(ask.limits);
  state.count = kLimits;
}

void ResourceLimits::encode(const State& state, pb::core_entry& core) {
  pb::task_rlimits_entry& out = *core.mutable_tc()->mutable_rlimits();
  for (size_t i = 0; i < state.count; ++i) {
    pb::rlimit_entry& entry = *out.add_rlimits();
    entry.set_cur(state.limits[i].soft);
    entry.set_max(state.limits[i].hard);
  }
}

void ResourceLimits::decode(const pb::core_entry& core, State& state) {
  const auto& in = core.tc().rlimits().rlimits();
  if (static_cast<size_t>(in.size()) > kLimits)
    throw Error(Reason::IMAGE_CORRUPT, "the core image holds more resource limits than there are");
  state.count = 0;
  for (const pb::rlimit_entry& entry : in) {
    if (entry.cur() > entry.max()) throw Error(Reason::IMAGE_CORRUPT, "a soft resource limit exceeds the hard one");
    state.limits[state.count++] = {.soft = entry.cur(), .hard = entry.max()};
  }
}

void ResourceLimits::apply(const State& state, const SettleView& view) {
  for (size_t i = 0; i < state.count; ++i) {
    const int resource = static_cast<int>(i);
    rlimit64 old{};
    fail_if(prlimit64(view.pid, resource, nullptr, &old), "the resource limits of a new task cannot be read");
    const Limit present{.soft = old.rlim_cur, .hard = old.rlim_max};
    Limit wanted = state.limits[i];
    if (wanted == present) continue;
    // The queues may hold more than the limit allows now: it is only raised here, and lowered when they are full.
    if (i == RLIMIT_SIGPENDING) wanted = {std::max(wanted.soft, present.soft), std::max(wanted.hard, present.hard)};
    const rlimit64 limit{.rlim_cur = wanted.soft, .rlim_max = wanted.hard};
    const int result = prlimit64(view.pid, resource, &limit, nullptr);
    if (result < 0) cannot_set(i, present, wanted, -result, view.who);
  }
}

void ResourceLimits::arm(const State& state, const SettleView&, SyscallBatch& batch) {
  if (state.count <= RLIMIT_SIGPENDING) return;
  const Limit& limit = state.limits[RLIMIT_SIGPENDING];
  rlimit64 own{};
  if (getrlimit64(RLIMIT_SIGPENDING, &own) == 0 && limit == Limit{.soft = own.rlim_cur, .hard = own.rlim_max}) return;
  batch.must(SYS_prlimit64, {0, RLIMIT_SIGPENDING, batch.object(limit), nullptr});
}

}  // namespace stasis
