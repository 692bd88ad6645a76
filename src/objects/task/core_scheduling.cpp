#include "objects/task/core_scheduling.h"

#include <sys/prctl.h>

namespace stasis {

namespace {

// 0 as well on a kernel that has no cookies.
uint64_t cookie_of(pid_t tid) {
  constexpr unsigned long kOneThread = 0;  // PR_SCHED_CORE_SCOPE_THREAD
  uint64_t cookie = 0;
  return prctl(PR_SCHED_CORE, PR_SCHED_CORE_GET, tid, kOneThread, &cookie) == 0 ? cookie : 0;
}

bool has_cookies() {
  static const bool has = [] {
    uint64_t cookie;
    return prctl(PR_SCHED_CORE, PR_SCHED_CORE_GET, 0, 0ul, &cookie) == 0;
  }();
  return has;
}

}  // namespace

void CoreScheduling::prepare(const ProcStatus&) {
  has_cookies();
}

void CoreScheduling::look(const LookView& view, State& state) {
  if (has_cookies()) state.cookie = cookie_of(view.tid);
}

std::optional<Loss> CoreScheduling::loss(const State& state) {
  if (state.cookie == 0) return std::nullopt;
  return Loss{"core-scheduling", "it has a core scheduling cookie"};
}

}  // namespace stasis
