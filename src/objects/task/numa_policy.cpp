#include "objects/task/numa_policy.h"

#include <linux/mempolicy.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>

#include "base/error.h"
#include "base/log.h"

namespace stasis {

namespace {

constexpr uint32_t kFlags = 7u << 13;          // MPOL_MODE_FLAGS
constexpr uint32_t kRelativeNodes = 1u << 14;  // MPOL_F_RELATIVE_NODES
constexpr uint32_t kLastMode = 6;              // MPOL_WEIGHTED_INTERLEAVE (6.9)

const std::optional<uint32_t>& limit() {
  static const std::optional<uint32_t> bits = memory_node_limit();
  return bits;
}

const NumberSet& nodes_here() {
  static const NumberSet nodes = nodes_with_memory();
  return nodes;
}

bool own_is_default() {
  static const bool is = [] {
    int mode = 0;
    return syscall(SYS_get_mempolicy, &mode, nullptr, 0ul, nullptr, 0ul) != 0 || mode == MPOL_DEFAULT;
  }();
  return is;
}

// The nodes that can be asked for here.
NumberSet usable(const NumaPolicy::State& state, const SettleView& view) {
  if ((state.mode & kRelativeNodes) != 0) return state.nodes;
  NumberSet out = state.nodes.common(nodes_here());
  if (out.empty())
    throw Error(Reason::RESTORE_CALL_FAILED, "none of the memory nodes of its NUMA policy is here")
        .object(view.who)
        .remedy("add --cpu-affinity ignore to let its memory be where that of this program may be");
  if (out != state.nodes)
    log_info("{}: the NUMA policy of thread {} names memory nodes that are not here", view.who, view.tid);
  return out;
}

}  // namespace

void NumaPolicy::prepare(const ProcStatus&) {
  limit();
}

void NumaPolicy::ask(const LookView&, SyscallBatch& batch, Ask& ask, State&) {
  if (!limit()) return;
  ask.mode = batch.space(sizeof(uint64_t));
  ask.nodes = batch.space(*limit() / 8);
  batch.must(SYS_get_mempolicy, {ask.mode, ask.nodes, *limit(), 0, 0});
}

void NumaPolicy::answer(const SyscallBatch& batch, const Ask& ask, State& state) {
  state.told = true;
  if (!limit()) return;
  state.mode = batch.value<uint32_t>(ask.mode);
  if (state.mode == MPOL_DEFAULT) return;
  std::vector<uint64_t> words(ask.nodes.size / sizeof(uint64_t));
  const auto bytes = batch.bytes(ask.nodes);
  std::memcpy(words.data(), bytes.data(), bytes.size());
  state.nodes = NumberSet(words);
}

void NumaPolicy::encode_extension(const State& state, pb::extension_task& task) {
  if (state.mode == MPOL_DEFAULT) return;
  pb::extension_numa& out = *task.mutable_thread()->mutable_numa();
  out.set_mode(state.mode);
  const auto words = state.nodes.words();
  out.mutable_nodes()->Add(words.begin(), words.end());
}

void NumaPolicy::decode_extension(const pb::extension_task& task, State& state) {
  state.told = true;
  if (!task.thread().has_numa()) return;
  const pb::extension_numa& in = task.thread().numa();
  state.mode = in.mode();
  state.nodes = NumberSet({in.nodes().data(), static_cast<size_t>(in.nodes().size())});
  if ((state.mode & ~kFlags) > kLastMode || state.nodes.words().size() > NumberSet::kMostWords)
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
  const NumberSet nodes = usable(state, view);
  const BatchData words = batch.data(std::as_bytes(nodes.words()));
  // The call looks at one bit less than it is told.
  batch.must(SYS_set_mempolicy, {state.mode, words, nodes.words().size() * 64 + 1});
}

}  // namespace stasis
