// Descriptors of memory segments that a thread has of its own: the three slots of the global table that 32-bit programs
// use for the areas of their threads (set_thread_area(2)). One source file per CPU; threads of 64-bit code that use
// such a slot are refused where registers are looked at.
//
// A table of the whole process (modify_ldt(2)) of a 32-bit program is refused.
#pragma once

#include <array>
#include <cstdint>

#include "objects/task_object.h"

namespace stasis {

struct SegmentDescriptors {
  static constexpr std::string_view name = "segment descriptors";
  static constexpr Scope scope = Scope::thread;
  static constexpr uint32_t kFirst = 12, kSlots = 3;  // GDT_ENTRY_TLS_MIN, GDT_ENTRY_TLS_ENTRIES of a 64-bit kernel
  // As the kernel transfers it (struct user_desc).
  struct Descriptor {
    uint32_t number = 0, base = 0, limit = 0, flags = 0;
    bool operator==(const Descriptor&) const = default;
  };
  struct State {
    std::vector<Descriptor> slots;  // none: of 64-bit code
  };
  struct Ask {
    SyscallBatch::Call local_table;
    bool asked = false;
  };
  static void look(const LookView& view, State& state);
  static void ask(const LookView& view, SyscallBatch& batch, Ask& ask, State& state);
  static void answer(const SyscallBatch& batch, const Ask& ask, State& state);
  static void encode(const State& state, pb::core_entry& core);
  static void decode(const pb::core_entry& core, State& state);
  static void settle(const State& state, const SettleView& view, SyscallBatch& batch);
};

}  // namespace stasis
