#include "objects/task/numa_policy.h"

#include <fmt/format.h>
#include <linux/mempolicy.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>

#include "base/error.h"
#include "memory/numa.h"

namespace stasis {

namespace {

bool own_is_default() {
  static const bool is = [] {
    int mode = 0;
    return syscall(SYS_get_mempolicy, &mode, nullptr, 0ul, nullptr, 0ul) != 0 || mode == MPOL_DEFAULT;
  }();
  return is;
}

}  // namespace

void NumaPolicy::prepare(const ProcStatus&) {
  memory_node_limit();
}

void NumaPolicy::ask(const LookView&, SyscallBatch& batch, Ask& ask, State&) {
  if (!memory_node_limit()) return;
  ask.mode = batch.space(sizeof(uint64_t));
  ask.nodes = batch.space(*memory_node_limit() / 8);
  batch.must(SYS_get_mempolicy, {ask.mode, ask.nodes, *memory_node_limit(), 0, 0});
}

void NumaPolicy::answer(const SyscallBatch& batch, const Ask& ask, State& state) {
  state.told = true;
  if (!memory_node_limit()) return;
  state.mode = batch.value<uint32_t>(ask.mode);
  if (state.mode == MPOL_DEFAULT) return;
  state.nodes = NumberSet::of_bytes(batch.bytes(ask.nodes));
}

void NumaPolicy::encode_extension(const State& state, pb::extension_task& task) {
  if (state.mode == MPOL_DEFAULT) return;
  encode_numa(state.mode, state.nodes, *task.mutable_thread()->mutable_numa());
}

void NumaPolicy::decode_extension(const pb::extension_task& task, State& state) {
  state.told = true;
  if (task.thread().has_numa() && !decode_numa(task.thread().numa(), state.mode, state.nodes))
    throw Error(Reason::IMAGE_CORRUPT, "the NUMA policy makes no sense");
}

void NumaPolicy::settle(const State& state, const SettleView& view, SyscallBatch& batch) {
  if (!state.told || view.options.cpu_affinity == CpuAffinityChoice::inherit) return;
  if (state.mode == MPOL_DEFAULT) {
    if (!own_is_default()) batch.must(SYS_set_mempolicy, {MPOL_DEFAULT, nullptr, 0});
    return;
  }
  if (state.nodes.empty()) {
    batch.must(SYS_set_mempolicy, {state.mode, nullptr, 0});
    return;
  }
  const NumberSet nodes =
      usable_nodes(state.mode, state.nodes, fmt::format("the NUMA policy of thread {}", view.tid), view.who);
  const BatchData words = batch.data(std::as_bytes(nodes.words()));
  // The call looks at one bit less than it is told.
  batch.must(SYS_set_mempolicy, {state.mode, words, nodes.words().size() * 64 + 1});
}

}  // namespace stasis
