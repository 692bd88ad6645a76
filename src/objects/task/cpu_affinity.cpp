#include "objects/task/cpu_affinity.h"

#include "base/error.h"
#include "base/log.h"
#include "kernel/process.h"

namespace stasis {

namespace {

const NumberSet& online() {
  static const NumberSet cpus = online_cpus();
  return cpus;
}

NumberSet affinity_of(pid_t tid) {
  NumberSet cpus;
  fail_if(get_affinity(tid, cpus), "the processors it may run on cannot be read");
  return cpus;
}

}  // namespace

void CpuAffinity::prepare(const ProcStatus&) {
  online();
}

void CpuAffinity::look(const LookView& view, State& state) {
  state.told = true;
  state.cpus = affinity_of(view.tid);
  if (state.cpus.contains(online())) state.cpus = NumberSet();
}

void CpuAffinity::encode_extension(const State& state, pb::extension_task& task) {
  if (state.cpus.empty()) return;
  const auto words = state.cpus.words();
  task.mutable_thread()->mutable_cpu_affinity()->Add(words.begin(), words.end());
}

void CpuAffinity::decode_extension(const pb::extension_task& task, State& state) {
  const auto& words = task.thread().cpu_affinity();
  state.told = true;
  if (words.empty()) return;
  state.cpus = NumberSet({words.data(), static_cast<size_t>(words.size())});
  if (state.cpus.empty() || state.cpus.words().size() > NumberSet::kMostWords)
    throw Error(Reason::IMAGE_CORRUPT, "the set of processors makes no sense");
}

void CpuAffinity::apply(const State& state, const SettleView& view) {
  if (!state.told || view.options.cpu_affinity == CpuAffinityChoice::inherit) return;
  const NumberSet now = affinity_of(view.tid);
  if (state.cpus.empty() ? now.contains(online()) : now == state.cpus) return;
  const int result = set_affinity(view.tid, state.cpus.empty() ? NumberSet::all() : state.cpus);
  if (result == -EINVAL)
    throw Error(Reason::RESTORE_CALL_FAILED, "none of the processors that it was bound to can be used here")
        .object(view.who)
        .error_number(-result)
        .remedy("add --cpu-affinity ignore to let it run where this program may run");
  fail_if(result, "it cannot be bound to its processors", Reason::RESTORE_CALL_FAILED);
  if (!state.cpus.empty() && affinity_of(view.tid) != state.cpus)
    log_info("{}: thread {} was bound to more processors than can be used here", view.who, view.tid);
}

}  // namespace stasis
