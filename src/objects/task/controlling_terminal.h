// Which terminal controls a process (credentials(7), tty_nr of /proc/PID/stat). Processes have it from whoever forked
// them, so that a restore gives it to the leader of a session before its children are born (PuppetTree).
#pragma once

#include <optional>

#include "objects/task_object.h"

namespace stasis {

struct ControllingTerminal {
  static constexpr std::string_view name = "controlling terminal";
  static constexpr Scope scope = Scope::process;
  struct State {
    std::optional<uint32_t> device;  // 0: none; nothing: the image does not tell
  };

  static void look(const LookView& view, State& state);
  static void encode_extension(const State& state, pb::extension_task& task);
  static void decode_extension(const pb::extension_task& task, State& state);
};

}  // namespace stasis
