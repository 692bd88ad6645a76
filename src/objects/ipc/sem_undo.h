// What System V semaphores are given back when a thread ends (semop(2) with SEM_UNDO).
//
// Nobody can read it: the numbers are compared with a limit only, in semop(). So the thread is made to ask for
// operations that cannot succeed, because their last one would have to wait: with EAGAIN for that, all before it were
// possible; with ERANGE, what is to be undone left its range, and so it was above or below a number that the call
// chose. The operations cancel each other, and a call that fails changes and wakes nothing: values, the pid and the
// time of the last operation stay. What stays is an entry in the kernel's list with nothing to undo; when the thread
// ends, the set's time of the last operation changes by it.
//
// Threads share their list with their process, if they are made by pthread_create(). A process that never had a second
// thread or such an operation has no list (kcmp tells), and nothing is asked in it; nor in anybody while there is no
// semaphore set that was ever used.
//
// A restore makes the operations again: sets belong to the host, and took the adjustment when the dump ended the task.
// It fails when a value does not allow for it any more, as when somebody else holds the lock now.
#pragma once

#include "objects/task_object.h"

namespace stasis {

struct SemUndo {
  static constexpr std::string_view name = "semaphore adjustments";
  static constexpr Scope scope = Scope::thread;

  struct Adjustment {
    uint32_t set = 0, key = 0, semaphore = 0;
    int32_t value = 0;  // is added when the thread ends
    bool operator==(const Adjustment&) const = default;
  };
  // At a dump: a set that it may have used.
  struct Set {
    int id = 0;
    uint32_t key = 0;
    std::vector<uint16_t> values;
  };
  struct Group {
    size_t set = 0, first = 0, end = 0;  // semaphores
    int sign = 0;
  };
  // The value of one adjustment is at least `proved` and less than `disproved`, times the sign.
  struct Search {
    size_t set = 0, semaphore = 0;
    int sign = 0;
    int32_t proved = 0, disproved = 0;
    int32_t next() const;
    bool is_done() const { return disproved - proved == 1; }
  };
  struct State {
    bool own_list = false;  // not that of the first thread that lives
    std::vector<Adjustment> adjustments;

    // During a dump. First it is asked whether there is anything, in one call for many semaphores, then what it is.
    bool shared_with_parent = false;
    std::vector<Set> sets;
    std::vector<Group> groups;
    size_t asked_groups = 0;
    std::vector<Search> searches;
  };
  struct Ask {
    struct Probe {
      SyscallBatch::Call call;
      size_t index = 0;  // of groups or searches
    };
    bool searching = false;
    std::vector<Probe> probes;
  };

  static void look(const LookView&, State&);
  static void ask(const LookView&, SyscallBatch&, Ask&, State&);
  static void answer(const SyscallBatch&, const Ask&, State&);
  static bool asks_again(const State&);
  static void encode_extension(const State&, pb::extension_task&);
  static void decode_extension(const pb::extension_task&, State&);
  static void settle(const State&, const SettleView&, SyscallBatch&);
};

}  // namespace stasis
