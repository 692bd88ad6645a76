// Restartable sequences of a thread (rseq(2)): where its area is registered, and the critical section it stands in.
#pragma once

#include <cstdint>

#include "objects/task_object.h"

namespace stasis {

struct Rseq {
  static constexpr std::string_view name = "restartable sequences";
  static constexpr Scope scope = Scope::thread;
  struct State {
    uint64_t area = 0;  // 0: not registered
    uint32_t size = 0;
    uint32_t signature = 0;
    uint64_t section = 0;  // the section it must go on with; 0: none, or one that may be aborted
  };
  // Takes the thread out of an abortable section, see below.
  static void look(const LookView& view, State& state);
  static void encode(const State& state, pb::core_entry& core);
  static void decode(const pb::core_entry& core, State& state);
  static void settle(const State& state, const SettleView& view, SyscallBatch& batch);
};

// A thread stopped inside a critical section would lose it when something runs in it: the kernel clears the section
// pointer as soon as the instruction pointer leaves it (O-66). Such a thread is made to resume at the abort address,
// which its code expects at any time. Call it on a stopped thread with its own state saved, before anything runs in it;
// look() does. Returns the section's address if its flags forbid that: the thread has to go on inside.
uint64_t fix_rseq_critical_section(Tracee& thread, pid_t pid);

// Puts the section of State back into the thread's area, if there is one. The last thing that happens to a thread
// before it is released: any code that runs outside of the section clears it again.
void put_back_rseq_section(const Rseq::State& state, pid_t pid);

// Where a thread at `ip` resumes: the abort address if it stands inside the section, else nothing.
struct RseqSection {  // struct rseq_cs of the kernel
  uint32_t version = 0, flags = 0;
  uint64_t start_ip = 0, post_commit_offset = 0, abort_ip = 0;
  bool contains(uint64_t ip) const { return ip - start_ip < post_commit_offset; }
};
static_assert(sizeof(RseqSection) == 32);

}  // namespace stasis
