// A syscall batch: a table of system calls, built here, run by a stopped task.
//
//   SyscallBatch batch;
//   auto stack = batch.space(sizeof(stack_t));
//   auto call = batch.call(SYS_sigaltstack, 0, stack).stop_on_error();
//   ... run it in a tracee ...
//   batch.result(call); batch.value<stack_t>(stack);
//
// Plain data: a batch knows no task. A result may be an argument of later calls (pass the Call as the argument): any
// one of the first that takes it, the first argument of others. A batch must not contain a sleeping call: the
// interrupted call of the thread it runs in would lose its restart block (ordering row O-65 is the one deliberate
// exception).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "arch/arch.h"
#include "tracee/remote_ptr.h"

namespace stasis {

// A piece of the batch's own memory in the task: input copied there, or room for output.
struct BatchData {
  uint32_t offset = 0;
  uint32_t size = 0;
  // A part of it, e.g. a field of a struct that a call fills.
  BatchData part(size_t at, size_t bytes) const {
    return {offset + static_cast<uint32_t>(at), static_cast<uint32_t>(bytes)};
  }
};

class SyscallBatch {
 public:
  struct Call {
    uint32_t index = 0;
  };

  class Arg {
   public:
    template <class T>
    requires(std::is_integral_v<T> || std::is_enum_v<T>) Arg(T value)
        : kind_(Kind::value), value_(static_cast<uint64_t>(value)) {}
    Arg(std::nullptr_t) : kind_(Kind::value) {}
    template <class T>
    Arg(RemotePtr<T> p) : kind_(Kind::value), value_(p.address()) {}
    Arg(BatchData d) : kind_(Kind::data), value_(d.offset) {}
    Arg(Call c) : kind_(Kind::result), value_(c.index) {}

   private:
    friend class SyscallBatch;
    enum class Kind { value, data, result };
    Kind kind_;
    uint64_t value_ = 0;
  };

  // Appends a call. `flags`: arch::kStopOnError, arch::kExitIfChild.
  Call call(long number, std::initializer_list<Arg> args, uint64_t flags = 0);
  // The usual form: the batch ends when this call fails.
  Call must(long number, std::initializer_list<Arg> args) { return call(number, args, arch::kStopOnError); }

  // Calls made by the task itself if no controller takes over after the table; in order. Only immediate arguments and
  // batch data.
  void undo(long number, std::initializer_list<Arg> args);

  BatchData space(size_t bytes);
  BatchData data(std::span<const std::byte> bytes);
  BatchData text(const std::string& zero_terminated);
  template <class T>
  requires std::is_trivially_copyable_v<T> BatchData object(const T& value) {
    return data(std::as_bytes(std::span(&value, 1)));
  }
  // Overwrites input placed before the run.
  void store(BatchData where, std::span<const std::byte> bytes);
  // Makes the 8 bytes at `where` hold the address of `target` in the task (iovec, msghdr, clone_args ...).
  void point(BatchData where, BatchData target);

  size_t calls() const { return entries_.size(); }
  bool empty() const { return entries_.empty(); }
  bool has_undo() const { return !undo_.empty(); }
  // Bytes it takes in the task.
  size_t size() const;
  void clear();

  // ---- for the runner ----
  // Where parts lie relative to the start of the image.
  size_t undo_offset() const { return 0; }
  size_t entries_offset() const { return (undo_.size() + 1) * sizeof(arch::BatchEntry); }
  size_t data_offset() const { return entries_offset() + (entries_.size() + 1) * sizeof(arch::BatchEntry); }
  // The bytes for the address `base`: undo table, table, data.
  void serialise(uint64_t base, std::vector<std::byte>& out) const;
  // Takes the table and the data as the task left them (entries_offset() on).
  void take_results(std::span<const std::byte> bytes);

  // ---- results ----
  bool was_run(Call c) const { return static_cast<uint64_t>(entries_[c.index].result) != arch::kNotRun; }
  int64_t result(Call c) const { return entries_[c.index].result; }
  // The call that ended the batch early, if one did.
  const arch::BatchEntry* failed() const;
  std::string describe(const arch::BatchEntry& entry) const;
  std::span<const std::byte> bytes(BatchData d) const { return std::span(data_).subspan(d.offset, d.size); }
  template <class T>
  requires std::is_trivially_copyable_v<T> T value(BatchData d)
  const {
    T out;
    std::memcpy(&out, data_.data() + d.offset, sizeof out);
    return out;
  }

 private:
  struct Relocation {
    uint32_t entry;  // index; undo entries have the top bit set
    uint32_t arg;
  };
  struct Pointer {
    uint32_t at, target;
  };
  arch::BatchEntry make_entry(long number, std::initializer_list<Arg> args, uint64_t flags, uint32_t index);

  std::vector<arch::BatchEntry> entries_;
  std::vector<arch::BatchEntry> undo_;
  std::vector<std::byte> data_;
  std::vector<Relocation> relocations_;
  std::vector<uint32_t> results_;  // entries whose first argument is an earlier result, by its place
  std::vector<Pointer> pointers_;
};

}  // namespace stasis
