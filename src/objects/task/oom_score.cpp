#include "objects/task/oom_score.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>

#include "base/error.h"

namespace stasis {

void OomScore::look(const LookView& view, State& state) {
  state.adjustment = parse_oom_score_adj(view.proc.read("oom_score_adj"));
}

void OomScore::encode(const State& state, pb::core_entry& core) {
  if (state.adjustment) core.mutable_tc()->set_oom_score_adj(*state.adjustment);
}

void OomScore::decode(const pb::core_entry& core, State& state) {
  state.adjustment.reset();
  if (!core.tc().has_oom_score_adj()) return;
  const int value = core.tc().oom_score_adj();
  if (value < -1000 || value > 1000) throw Error(Reason::IMAGE_CORRUPT, "the out-of-memory score is out of range");
  state.adjustment = value;
}

void OomScore::apply(const State& state, const SettleView& view) {
  if (!state.adjustment) return;
  // Every new process has that of this program.
  static const int present = parse_oom_score_adj(ProcDir(getpid()).read("oom_score_adj"));
  if (present == *state.adjustment) return;
  try {
    ProcDir(view.pid).write("oom_score_adj", fmt::format("{}", *state.adjustment));
  } catch (const Error& e) {
    if (e.error_number() != EACCES) throw;
    throw Error(Reason::NO_PRIVILEGE,
                fmt::format("its oom_score_adj cannot be lowered from {} to {}", present, *state.adjustment))
        .object(view.who)
        .error_number(EACCES)
        .remedy("run the restore with CAP_SYS_RESOURCE, or with that oom_score_adj");
  }
}

}  // namespace stasis
