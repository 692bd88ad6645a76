// What a process is: running, stopped by a signal, or dead; its name and flags. The restore acts on it at release.
#pragma once

#include <signal.h>

#include <cstdint>
#include <optional>
#include <string>

#include "objects/task_object.h"

namespace stasis {

struct TaskState {
  static constexpr std::string_view name = "task state";
  static constexpr Scope scope = Scope::process;
  enum class Kind : uint32_t { alive = 1, dead = 2, stopped = 3, zombie = 6 };  // the numbers of the image
  struct State {
    Kind kind = Kind::alive;
    int stop_signal = 0;                    // that stopped the whole process
    bool stop_collected = false;            // and its parent was told by wait(2)
    uint32_t exit_code = 0;                 // wait(2) status of a dead one
    int exit_signal = SIGCHLD;              // that tells its parent of its end; 0: none
    std::optional<uint32_t> leader_status;  // the main thread has ended, with this wait(2) status
    uint32_t flags = 0;                     // PF_*, for the record
    std::string comm;                       // of the leader
    uint64_t blocked = 0;                   // of the leader
    bool dead() const { return kind == Kind::dead || kind == Kind::zombie; }
  };
  static void look(const LookView& view, State& state);
  static void encode(const State& state, pb::core_entry& core);
  static void decode(const pb::core_entry& core, State& state);
  static void encode_extension(const State& state, pb::extension_task& task);
  static void decode_extension(const pb::extension_task& task, State& state);
};

// The state of a process that is dead and not waited for; it has no other.
TaskState::State zombie_state(const ProcStat& stat);

}  // namespace stasis
