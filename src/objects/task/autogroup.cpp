#include "objects/task/autogroup.h"

#include <fmt/format.h>

#include <cerrno>

#include "base/error.h"
#include "base/log.h"

namespace stasis {

void Autogroup::look(const LookView& view, State& state) {
  // The file names the group of the session, whoever is asked.
  if (view.stat.sid != view.pid) return;
  const auto text = view.proc.try_read("autogroup");
  if (text) state.nice = parse_autogroup_nice(*text);
}

void Autogroup::encode_extension(const State& state, pb::extension_task& task) {
  if (state.nice.value_or(0) != 0) task.mutable_process()->set_autogroup_nice(*state.nice);
}

void Autogroup::decode_extension(const pb::extension_task& task, State& state) {
  if (!task.process().has_autogroup_nice()) return;
  state.nice = task.process().autogroup_nice();
  if (*state.nice < -20 || *state.nice > 19) throw Error(Reason::IMAGE_CORRUPT, "the nice value is out of range");
}

void Autogroup::apply(const State& state, const SettleView& view) {
  if (!state.nice) return;
  ProcDir proc(view.pid);
  const auto text = proc.try_read("autogroup");
  const std::optional<int32_t> present = text ? parse_autogroup_nice(*text) : std::nullopt;
  if (!present) {
    log_info("{}: this kernel makes no scheduling groups of sessions: its nice value {} is not set", view.who,
             *state.nice);
    return;
  }
  if (*present == *state.nice) return;
  try {
    proc.write("autogroup", fmt::format("{}", *state.nice));
  } catch (Error& e) {
    if (e.error_number() == EPERM || e.error_number() == EAGAIN)
      throw Error(Reason::NO_PRIVILEGE, fmt::format("the nice value {} of its session cannot be set", *state.nice))
          .object(view.who)
          .error_number(e.error_number())
          .remedy("run the restore with CAP_SYS_NICE and CAP_SYS_ADMIN");
    throw;
  }
}

}  // namespace stasis
