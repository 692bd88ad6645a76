#include "checkpoint/area_policies.h"

#include <linux/mempolicy.h>
#include <sys/syscall.h>

#include <algorithm>
#include <bit>

#include "kernel/number_set.h"

namespace stasis {

namespace {

constexpr size_t kModesAtOnce = 200;
constexpr size_t kNodesAtOnce = 8;
constexpr size_t kQuestionBytes = 104;  // an entry of the table and the answer, rounded up
constexpr size_t kManyAreas = 1500;

bool has_one_node() {
  const auto words = nodes_with_memory().words();
  return words.size() == 1 && std::has_single_bit(words[0]);
}

bool is_asked(std::span<const Vma> areas) {
  return memory_node_limit() && (areas.size() <= kManyAreas || !has_one_node());
}

}  // namespace

void AreaPolicies::prepare() {
  memory_node_limit();
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
    const BatchData mode = batch.space(sizeof(uint64_t)), nodes = batch.space(*memory_node_limit() / 8);
    questions_.push_back(
        {batch.must(SYS_get_mempolicy, {mode, nodes, *memory_node_limit(), found_[next_found_].start, MPOL_F_ADDR}),
         next_found_, mode, nodes});
  }
  return !questions_.empty();
}

void AreaPolicies::answer(std::span<const Vma> areas, const SyscallBatch& batch) {
  for (const Question& q : questions_) {
    if (asked_nodes_) {
      found_[q.index].nodes = NumberSet::of_bytes(batch.bytes(q.nodes));
      continue;
    }
    const auto mode = batch.value<uint32_t>(q.mode);
    if (batch.result(q.call) == 0 && mode != MPOL_DEFAULT)
      found_.push_back({areas[q.index].start, areas[q.index].end, mode, {}});
  }
}

}  // namespace stasis
