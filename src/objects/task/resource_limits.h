// Resource limits of a process.
//
// They are set from outside, while the task still has the credentials of this program: prlimit(2) refuses other tasks
// to callers without CAP_SYS_RESOURCE, which not every root has. For the same reason a dump lets the task ask itself.
#pragma once

#include <array>
#include <cstdint>

#include "objects/task_object.h"

namespace stasis {

struct ResourceLimits {
  static constexpr std::string_view name = "resource limits";
  static constexpr Scope scope = Scope::process;
  struct Limit {  // struct rlimit64; all ones: no limit
    uint64_t soft = ~uint64_t{0}, hard = ~uint64_t{0};
    bool operator==(const Limit&) const = default;
  };
  static constexpr size_t kLimits = 16;
  struct State {
    std::array<Limit, kLimits> limits{};  // by RLIMIT_*
    size_t count = 0;                     // how many are known
  };
  struct Ask {
    BatchData limits;
  };
  static void ask(const LookView& view, SyscallBatch& batch, Ask& ask, State& state);
  static void answer(const SyscallBatch& batch, const Ask& ask, State& state);
  static void encode(const State& state, pb::core_entry& core);
  static void decode(const pb::core_entry& core, State& state);
  // Lowers and keeps without any privilege; throws NO_PRIVILEGE where a hard limit would have to rise.
  static void apply(const State& state, const SettleView& view);
  // RLIMIT_SIGPENDING, which may be below what is queued.
  static void arm(const State& state, const SettleView& view, SyscallBatch& batch);
};

}  // namespace stasis
