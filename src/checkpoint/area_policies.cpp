#include "checkpoint/area_policies.h"

#include <linux/mempolicy.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "kernel/number_set.h"

namespace stasis {

namespace {

constexpr size_t kModesAtOnce = 200;
constexpr size_t kNodesAtOnce = 8;
constexpr size_t kQuestionBytes = 104;  // an entry of the table and the answer, rounded up
constexpr size_t kManyAreas = 1500;

// Words of a set of nodes; nothing without NUMA.
const std::optional<uint32_t>& limit() {
  static const std::optional<uint32_t> bits = memory_node_limit();
  return bits;
}

bool has_one_node() {
  static const bool one = [] {
    const NumberSet nodes = nodes_with_memory();
    return nodes.words().size() == 1 && (nodes.words()[0] & (nodes.words()[0] - 1)) == 0;
  }();
  return one;
}

bool is_asked(std::span<const Vma> areas) {
  return limit() && (areas.size() <= kManyAreas || !has_one_node());
}

}  // namespace

void AreaPolicies::prepare() {
  limit();
  has_one_node();
}

size_t AreaPolicies::first_bytes(std::span<const Vma> areas) {
  return is_asked(areas) ? std::min(areas.size(), kModesAtOnce) * kQuestionBytes : 0;
}

bool AreaPolicies::ask(std::span<const Vma> areas, SyscallBatch& batch) {
  questions_.clear();
  if (!is_asked(areas)) return false;
  asked_nodes_ = next_area_ == areas.size();
  for (; next_area_ < areas.size() && questions_.size() < kModesAtOnce; ++next_area_) {
    const Vma& v = areas[next_area_];
    if ((v.status & (vma_status::vdso | vma_status::vvar | vma_status::vsyscall)) != 0) continue;
    const BatchData mode = batch.space(sizeof(uint64_t));
    questions_.push_back(
        {batch.call(SYS_get_mempolicy, {mode, nullptr, 0, v.start, MPOL_F_ADDR}), next_area_, mode, {}});
  }
  if (!asked_nodes_) return true;
  for (; next_found_ < found_.size() && questions_.size() < kNodesAtOnce; ++next_found_) {
    const BatchData mode = batch.space(sizeof(uint64_t)), nodes = batch.space(*limit() / 8);
    questions_.push_back(
        {batch.must(SYS_get_mempolicy, {mode, nodes, *limit(), found_[next_found_].start, MPOL_F_ADDR}), next_found_,
         mode, nodes});
  }
  return !questions_.empty();
}

void AreaPolicies::answer(std::span<const Vma> areas, const SyscallBatch& batch) {
  for (const Question& q : questions_) {
    if (asked_nodes_) {
      std::vector<uint64_t> words(q.nodes.size / sizeof(uint64_t));
      const auto bytes = batch.bytes(q.nodes);
      std::memcpy(words.data(), bytes.data(), words.size() * sizeof(uint64_t));
      found_[q.index].nodes = NumberSet(words);
      continue;
    }
    const auto mode = batch.value<uint32_t>(q.mode);
    if (batch.result(q.call) == 0 && mode != MPOL_DEFAULT)
      found_.push_back({areas[q.index].start, areas[q.index].end, mode, {}});
  }
}

}  // namespace stasis
