#include "objects/task/future_locks.h"

#include <sys/mman.h>
#include <sys/syscall.h>

#include "base/error.h"
#include "base/page_size.h"
#include "kernel/proc_maps.h"
#include "kernel/process.h"

namespace stasis {

void FutureLocks::look_at_new_mapping(pid_t pid, int pidfd, uint64_t area, State& state) {
  state.flags = 0;
  // Cheap, and has no effect on a page that is in use; locked memory refuses it (process_madvise(2)).
  const AddressRange page{area, area + page_size_bytes()};
  if (process_madvise(pidfd, page, MADV_COLD) >= 0) return;
  for (const Mapping& m : parse_smaps(ProcDir(pid).read("smaps"))) {
    if (m.start > area || m.end <= area || !m.has(VmFlag::lo)) continue;
    state.flags = MCL_FUTURE | (m.has(VmFlag::lf) ? MCL_ONFAULT : 0u);
  }
}

void FutureLocks::encode_extension(const State& state, pb::extension_task& task) {
  if (state.flags != 0) task.mutable_mm()->set_future_locks(state.flags);
}

void FutureLocks::decode_extension(const pb::extension_task& task, State& state) {
  state.flags = task.mm().future_locks();
  if (state.flags != 0 && (state.flags & ~uint32_t{MCL_ONFAULT}) != MCL_FUTURE)
    throw Error(Reason::IMAGE_CORRUPT, "the way to lock future mappings makes no sense");
}

void FutureLocks::settle(const State& state, const SettleView&, SyscallBatch& batch) {
  if (state.flags != 0) batch.must(SYS_mlockall, {state.flags});
}

}  // namespace stasis
