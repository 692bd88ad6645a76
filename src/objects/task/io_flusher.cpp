#include "objects/task/io_flusher.h"

#include <sys/prctl.h>
#include <sys/syscall.h>

namespace stasis {

void IoFlusher::look(const LookView& view, State& state) {
  // PR_GET_IO_FLUSHER needs a capability; PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE tell the same.
  constexpr uint32_t kIoFlusher = 0x00180000;
  state.set = (view.stat.flags & kIoFlusher) == kIoFlusher;
}

void IoFlusher::encode_extension(const State& state, pb::extension_task& task) {
  if (state.set.value_or(false)) task.mutable_thread()->set_io_flusher(true);
}

void IoFlusher::decode_extension(const pb::extension_task& task, State& state) {
  state.set = task.thread().io_flusher();
}

void IoFlusher::settle(const State& state, const SettleView&, SyscallBatch& batch) {
  // Who may not ask may not have set it either.
  static const bool own = prctl(PR_GET_IO_FLUSHER, 0, 0, 0, 0) == 1;
  if (state.set && *state.set != own) batch.must(SYS_prctl, {PR_SET_IO_FLUSHER, *state.set ? 1 : 0, 0, 0, 0});
}

}  // namespace stasis
