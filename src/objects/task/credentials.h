// Credentials of a thread: user and group ids, groups, capabilities, securebits, no_new_privs.
//
// The settling calls take privileges away from the thread: whatever needs one comes before (O-57, O-61).
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "objects/task_object.h"

namespace stasis {

struct Credentials {
  static constexpr std::string_view name = "credentials";
  static constexpr Scope scope = Scope::thread;
  struct State {
    std::array<uint32_t, 4> uid{}, gid{};  // real, effective, saved, file system
    std::vector<uint32_t> groups;
    uint64_t inheritable = 0, permitted = 0, effective = 0, bounding = 0, ambient = 0;
    uint32_t securebits = 0;
    bool no_new_privs = false;
    bool operator==(const State&) const = default;
  };
  struct Ask {
    SyscallBatch::Call securebits;
  };
  static void look(const LookView& view, State& state);
  static void ask(const LookView& view, SyscallBatch& batch, Ask& ask, State& state);
  static void answer(const SyscallBatch& batch, const Ask& ask, State& state);
  static void encode(const State& state, pb::core_entry& core);
  static void decode(const pb::core_entry& core, State& state);
  // A new task has the credentials of this program. Throws NO_PRIVILEGE for what nobody can give back.
  static void settle(const State& state, const SettleView& view, SyscallBatch& batch);
};

// Of the calling thread, read once.
const Credentials::State& own_credentials();

// Calls that lead from `from` to `to`; see settle().
void change_credentials(const Credentials::State& from, const Credentials::State& to, const std::string& who,
                        SyscallBatch& batch);

}  // namespace stasis
