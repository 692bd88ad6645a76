#include "objects/task/speculation.h"

#include <sys/prctl.h>
#include <sys/syscall.h>

#include "base/error.h"

namespace stasis {

namespace {

constexpr std::array<uint32_t, 3> kWhich{PR_SPEC_STORE_BYPASS, PR_SPEC_INDIRECT_BRANCH, PR_SPEC_L1D_FLUSH};
// The first two are misfeatures that are on, the last a measure that is off.
constexpr Speculation::Controls kDefault{PR_SPEC_ENABLE, PR_SPEC_ENABLE, PR_SPEC_DISABLE};
constexpr uint32_t kMask = PR_SPEC_ENABLE | PR_SPEC_DISABLE | PR_SPEC_FORCE_DISABLE | PR_SPEC_DISABLE_NOEXEC;

// The control behind an answer; 0 if it is not in the hand of tasks on this machine.
uint32_t control_in(int64_t answer) {
  return answer > 0 && (answer & PR_SPEC_PRCTL) != 0 ? static_cast<uint32_t>(answer) & kMask : 0;
}

const Speculation::Controls& own_controls() {
  static const Speculation::Controls controls = [] {
    Speculation::Controls out;
    for (size_t i = 0; i < kWhich.size(); ++i) out[i] = control_in(prctl(PR_GET_SPECULATION_CTRL, kWhich[i], 0, 0, 0));
    return out;
  }();
  return controls;
}

}  // namespace

void Speculation::prepare(const ProcStatus&) {
  own_controls();
}

void Speculation::ask(const LookView&, SyscallBatch& batch, Ask& ask, State&) {
  for (size_t i = 0; i < kWhich.size(); ++i)
    if (own_controls()[i] != 0) ask.control[i] = batch.must(SYS_prctl, {PR_GET_SPECULATION_CTRL, kWhich[i], 0, 0, 0});
}

void Speculation::answer(const SyscallBatch& batch, const Ask& ask, State& state) {
  for (size_t i = 0; i < kWhich.size(); ++i)
    if (ask.control[i]) state.control[i] = control_in(batch.result(*ask.control[i]));
}

void Speculation::encode_extension(const State& state, pb::extension_task& task) {
  for (size_t i = 0; i < kWhich.size(); ++i) {
    if (state.control[i] == 0 || state.control[i] == kDefault[i]) continue;
    pb::extension_speculation& out = *task.mutable_thread()->add_speculation();
    out.set_which(kWhich[i]);
    out.set_control(state.control[i]);
  }
}

void Speculation::decode_extension(const pb::extension_task& task, State& state) {
  state.control = kDefault;
  for (const pb::extension_speculation& in : task.thread().speculation()) {
    const uint32_t c = in.control();
    if (in.which() >= kWhich.size() || (c & ~kMask) != 0 || (c & (c - 1)) != 0 || c == 0)
      throw Error(Reason::IMAGE_CORRUPT, "the speculation control makes no sense");
    state.control[in.which()] = c;
  }
}

void Speculation::arm(const State& state, const SettleView&, SyscallBatch& batch) {
  for (size_t i = 0; i < kWhich.size(); ++i) {
    // Another processor may lack the misfeature, or another system decide for all tasks.
    const uint32_t present = own_controls()[i];
    if (state.control[i] == 0 || present == 0 || present == PR_SPEC_FORCE_DISABLE || present == state.control[i])
      continue;
    batch.must(SYS_prctl, {PR_SET_SPECULATION_CTRL, kWhich[i], state.control[i], 0, 0});
  }
}

}  // namespace stasis
