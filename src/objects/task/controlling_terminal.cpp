#include "objects/task/controlling_terminal.h"

namespace stasis {

void ControllingTerminal::look(const LookView& view, State& state) {
  state.device = view.stat.tty_nr;
}

void ControllingTerminal::encode_extension(const State& state, pb::extension_task& task) {
  if (state.device.value_or(0) != 0) task.mutable_process()->set_terminal(*state.device);
}

void ControllingTerminal::decode_extension(const pb::extension_task& task, State& state) {
  state.device = task.process().terminal();
}

}  // namespace stasis
