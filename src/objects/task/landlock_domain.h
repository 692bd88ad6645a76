// Whether a thread is in a Landlock domain (landlock(7)). The rules of a domain cannot be read back, by anybody: this
// object notices that there is one.
#pragma once

#include <optional>

#include "objects/task_object.h"

namespace stasis {

struct LandlockDomain {
  static constexpr std::string_view name = "Landlock domain";
  static constexpr Scope scope = Scope::thread;
  struct State {
    bool restricted = false;
  };
  struct Ask {
    std::optional<SyscallBatch::Call> look_at_witness;
  };
  static void prepare(const ProcStatus& root);
  static void ask(const LookView& view, SyscallBatch& batch, Ask& ask, State& state);
  static void answer(const SyscallBatch& batch, const Ask& ask, State& state);
  static std::optional<Loss> loss(const State& state);
};

}  // namespace stasis
