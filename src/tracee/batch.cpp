#include "tracee/batch.h"

#include <fmt/format.h>

#include "base/error.h"
#include "tracee/call_names.h"

namespace stasis {

namespace {

using arch::BatchEntry;
constexpr uint32_t kUndo = 1u << 31;
// result_to of an entry that forwards nothing; resolved to its own result field.
constexpr uint64_t kToItself = ~uint64_t{0};
// result_to while it means "argument a of entry e": e * 8 + a.
constexpr uint64_t forward_code(uint64_t entry, uint64_t arg) {
  return entry * 8 + arg;
}
// Where the table has the result of an entry.
constexpr uint64_t result_offset(uint64_t entry) {
  return entry * sizeof(BatchEntry) + offsetof(BatchEntry, result);
}

}  // namespace

BatchEntry SyscallBatch::make_entry(long number, std::initializer_list<Arg> args, uint64_t flags, uint32_t index) {
  BatchEntry e{};
  e.number = static_cast<uint64_t>(number);
  e.result = static_cast<int64_t>(arch::kNotRun);
  e.result_to = kToItself;
  e.flags = flags;
  uint32_t i = 0;
  for (const Arg& a : args) {
    if (i == 6) throw Error(Reason::INTERNAL, "a system call has six arguments");
    e.args[i] = a.value_;
    if (a.kind_ == Arg::Kind::data) relocations_.push_back({index, i});
    if (a.kind_ == Arg::Kind::result) {
      BatchEntry& from = entries_.at(a.value_);
      if ((index & kUndo) != 0) throw Error(Reason::INTERNAL, "a result is for a call of the table");
      if (from.result_to == kToItself) {
        from.result_to = forward_code(index, i);
      } else {
        if (i != 0)
          throw Error(Reason::INTERNAL, "a result is forwarded once; later calls take it as the first argument");
        e.flags |= arch::kLoadFirst;
        e.args[0] = result_offset(a.value_);
        results_.push_back(index);
      }
    }
    ++i;
  }
  return e;
}

SyscallBatch::Call SyscallBatch::call(long number, std::initializer_list<Arg> args, uint64_t flags) {
  const auto index = static_cast<uint32_t>(entries_.size());
  entries_.push_back(make_entry(number, args, flags, index));
  return {index};
}

void SyscallBatch::undo(long number, std::initializer_list<Arg> args) {
  const auto index = static_cast<uint32_t>(undo_.size()) | kUndo;
  undo_.push_back(make_entry(number, args, 0, index));
}

BatchData SyscallBatch::space(size_t bytes) {
  const auto offset = static_cast<uint32_t>(data_.size());
  data_.resize((data_.size() + bytes + 7) & ~size_t{7});
  return {offset, static_cast<uint32_t>(bytes)};
}

BatchData SyscallBatch::data(std::span<const std::byte> bytes) {
  const BatchData d = space(bytes.size());
  store(d, bytes);
  return d;
}

BatchData SyscallBatch::text(const std::string& s) {
  return data(std::as_bytes(std::span(s.c_str(), s.size() + 1)));
}

void SyscallBatch::store(BatchData where, std::span<const std::byte> bytes) {
  if (!bytes.empty()) std::memcpy(data_.data() + where.offset, bytes.data(), bytes.size());
}

void SyscallBatch::point(BatchData where, BatchData target) {
  pointers_.push_back({where.offset, target.offset});
}

size_t SyscallBatch::size() const {
  return data_offset() + data_.size();
}

void SyscallBatch::clear() {
  entries_.clear();
  undo_.clear();
  data_.clear();
  relocations_.clear();
  results_.clear();
  pointers_.clear();
}

void SyscallBatch::serialise(uint64_t base, std::vector<std::byte>& out) const {
  out.resize(size());
  const uint64_t entries_at = base + entries_offset();
  const uint64_t data_at = base + data_offset();
  auto* undo = reinterpret_cast<BatchEntry*>(out.data());
  auto* entries = reinterpret_cast<BatchEntry*>(out.data() + entries_offset());
  std::copy(undo_.begin(), undo_.end(), undo);
  std::copy(entries_.begin(), entries_.end(), entries);
  undo[undo_.size()] = BatchEntry{.number = arch::kEndOfTable};
  entries[entries_.size()] = BatchEntry{.number = arch::kEndOfTable};
  if (!data_.empty()) std::memcpy(out.data() + data_offset(), data_.data(), data_.size());

  for (const Relocation& r : relocations_) {
    BatchEntry& e = (r.entry & kUndo) != 0 ? undo[r.entry & ~kUndo] : entries[r.entry];
    e.args[r.arg] += data_at;
  }
  for (const uint32_t index : results_) entries[index].args[0] += entries_at;
  for (const Pointer& p : pointers_) {
    const uint64_t target = data_at + p.target;
    std::memcpy(out.data() + data_offset() + p.at, &target, 8);
  }
  for (size_t i = 0; i < entries_.size(); ++i) {
    const uint64_t to = entries[i].result_to;
    if (to == kToItself)
      entries[i].result_to = entries_at + result_offset(i);
    else
      entries[i].result_to = entries_at + (to / 8) * sizeof(BatchEntry) + offsetof(BatchEntry, args) + (to % 8) * 8;
  }
}

void SyscallBatch::take_results(std::span<const std::byte> bytes) {
  const auto* from = reinterpret_cast<const BatchEntry*>(bytes.data());
  for (size_t i = 0; i < entries_.size(); ++i) entries_[i].result = from[i].result;
  const size_t skip = (entries_.size() + 1) * sizeof(BatchEntry);
  if (!data_.empty()) std::memcpy(data_.data(), bytes.data() + skip, data_.size());
}

const BatchEntry* SyscallBatch::failed() const {
  for (const BatchEntry& e : entries_) {
    if (static_cast<uint64_t>(e.result) == arch::kNotRun) return nullptr;
    if ((e.flags & arch::kStopOnError) != 0 && e.result < 0 && e.result >= -4095) return &e;
  }
  return nullptr;
}

std::string SyscallBatch::describe(const BatchEntry& e) const {
  std::string out = fmt::format("{}(", (e.number & arch::kCompatCall) != 0
                                           ? fmt::format("32-bit system call {}", e.number & ~arch::kCompatCall)
                                           : call_name(static_cast<long>(e.number)));
  for (int i = 0; i < 6; ++i) out += fmt::format("{}{:#x}", i == 0 ? "" : ", ", e.args[i]);
  return out + ")";
}

}  // namespace stasis
