#include <asm/ldt.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "objects/task/registers.h"
#include "objects/task/segment_descriptors.h"

namespace stasis {

namespace {

using Descriptor = SegmentDescriptors::Descriptor;
static_assert(sizeof(Descriptor) == sizeof(user_desc));

// Requests that older headers lack (arch/x86/include/uapi/asm/ptrace-abi.h).
constexpr auto kGetThreadArea = static_cast<__ptrace_request>(25);

// The bits of user_desc::flags, by the fields of the image.
enum : uint32_t {
  kSeg32bit = 1u << 0,
  kContentsLow = 1u << 1,
  kContentsHigh = 1u << 2,
  kReadExecOnly = 1u << 3,
  kLimitInPages = 1u << 4,
  kNotPresent = 1u << 5,
  kUsable = 1u << 6,
};

}  // namespace

void SegmentDescriptors::look(const LookView& view, State& state) {
  if (!view.compat) return;
  state.slots.resize(kSlots);
  for (uint32_t i = 0; i < state.slots.size(); ++i)
    if (ptrace(kGetThreadArea, view.tid, kFirst + i, &state.slots[i]) != 0)
      throw Error(Reason::SYSTEM, "its segment descriptors cannot be read").error_number(errno);
}

void SegmentDescriptors::ask(const LookView& view, SyscallBatch& batch, Ask& ask, State&) {
  ask.asked = view.compat;
  if (!ask.asked) return;
  constexpr int kRead = 0, kOneEntry = 8;
  const BatchData entry = batch.space(kOneEntry);
  ask.local_table = batch.call(SYS_modify_ldt, {kRead, entry, kOneEntry});
}

void SegmentDescriptors::answer(const SyscallBatch& batch, const Ask& ask, State&) {
  // ENOSYS: nobody can have a table.
  if (ask.asked && batch.result(ask.local_table) > 0)
    throw Error(Reason::UNSUPPORTED_STATE, "it has a local descriptor table")
        .remedy("programs that use modify_ldt cannot be saved");
}

void SegmentDescriptors::encode(const State& state, pb::core_entry& core) {
  for (const Descriptor& d : state.slots) {
    pb::user_desc_t& out = *core.mutable_thread_info()->add_tls();
    out.set_entry_number(d.number);
    out.set_base_addr(d.base);
    out.set_limit(d.limit);
    out.set_seg_32bit((d.flags & kSeg32bit) != 0);
    out.set_contents_h((d.flags & kContentsHigh) != 0);
    out.set_contents_l((d.flags & kContentsLow) != 0);
    out.set_read_exec_only((d.flags & kReadExecOnly) != 0);
    out.set_limit_in_pages((d.flags & kLimitInPages) != 0);
    out.set_seg_not_present((d.flags & kNotPresent) != 0);
    out.set_usable((d.flags & kUsable) != 0);
  }
}

void SegmentDescriptors::decode(const pb::core_entry& core, State& state) {
  // Other programs write them for all threads.
  if (!runs_compat_code(core)) return;
  for (const pb::user_desc_t& in : core.thread_info().tls()) {
    if (in.entry_number() - kFirst >= kSlots)
      throw Error(Reason::IMAGE_CORRUPT, "a segment descriptor has a number that threads have none of");
    const auto bit = [](bool set, uint32_t flag) { return set ? flag : 0; };
    state.slots.push_back({.number = in.entry_number(),
                           .base = in.base_addr(),
                           .limit = in.limit(),
                           .flags = bit(in.seg_32bit(), kSeg32bit) | bit(in.contents_h(), kContentsHigh) |
                                    bit(in.contents_l(), kContentsLow) | bit(in.read_exec_only(), kReadExecOnly) |
                                    bit(in.limit_in_pages(), kLimitInPages) | bit(in.seg_not_present(), kNotPresent) |
                                    bit(in.usable(), kUsable)});
  }
}

void SegmentDescriptors::settle(const State& state, const SettleView&, SyscallBatch& batch) {
  for (const Descriptor& d : state.slots) batch.must(arch::kCompatSetThreadArea, {batch.object(d)});
}

}  // namespace stasis
