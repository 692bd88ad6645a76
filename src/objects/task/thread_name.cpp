#include "objects/task/thread_name.h"

#include <sys/prctl.h>
#include <sys/syscall.h>

#include "base/error.h"

namespace stasis {

std::string checked_task_name(const std::string& text) {
  constexpr size_t kLongest = 15;  // TASK_COMM_LEN without the final zero
  if (text.size() > kLongest || text.find('\0') != std::string::npos)
    throw Error(Reason::IMAGE_CORRUPT, "the name of a task is too long");
  return text;
}

void ThreadName::look(const LookView& view, State& state) {
  state.text = view.stat.comm;
}

void ThreadName::encode(const State& state, pb::core_entry& core) {
  core.mutable_thread_core()->set_comm(state.text);
}

void ThreadName::decode(const pb::core_entry& core, State& state) {
  // Older images have the name of the process only.
  state.text = checked_task_name(core.thread_core().has_comm() ? core.thread_core().comm() : core.tc().comm());
}

void ThreadName::settle(const State& state, const SettleView&, SyscallBatch& batch) {
  batch.must(SYS_prctl, {PR_SET_NAME, batch.text(state.text), 0, 0, 0});
}

}  // namespace stasis
