// The verbs of a task object: one piece of kernel state that belongs to a process or to a thread and is not a
// descriptor (signal handlers, alternate stack, credentials, timers ...).
//
// A kind is a struct with static members, in its own file; absent verbs are not called:
//
//   struct AltStack {
//     static constexpr std::string_view name = "alternate signal stack";
//     static constexpr Scope scope = Scope::thread;
//     struct State { uint64_t base = 0, size = 0; uint32_t flags = 0; };   // plain data, what an image holds
//     struct Ask { BatchData old; };                                       // handles from ask() to answer()
//
//     static void prepare(const ProcStatus& root);                 // once for a run, before any task stops
//     static constexpr const char* proc_files[] = {"timers"};      // files that look() reads of view.proc, read early
//     static void look(const LookView&, State&);                   // dump: read from outside; may refuse by throwing
//     static void ask(const LookView&, SyscallBatch&, Ask&, State&);     // dump: calls that only the task can make
//     static void answer(const SyscallBatch&, const Ask&, State&); // dump: take their results
//     // dump: whether it has to ask() and answer() once more
//     static bool asks_again(const State&);
//     static std::optional<Loss> loss(const State&);               // dump: what of it no image can hold
//     static void encode(const State&, pb::core_entry&);
//     static void decode(const pb::core_entry&, State&);           // throws IMAGE_CORRUPT for nonsense
//     static void encode_extension(const State&, pb::extension_task&);     // what the core has no place for
//     static void decode_extension(const pb::extension_task&, State&);
//     static void settle(const State&, const SettleView&, SyscallBatch&);  // restore: calls the task makes itself
//     static void apply(const State&, const SettleView&);          // restore: done by the controller, from outside
//     static void arm(const State&, const SettleView&, SyscallBatch&);     // restore: the last calls (O-55)
//   };
//
// encode() of every kind fills its part of one core_entry. A process object sees the core of the leader only. The
// order of the rows in registry.cpp is the order of settle(), and says why.
//
// encode_extension() adds a part only for what is not the default that proto/extension.proto names. decode_extension()
// is called, with an empty message for a task without a record, if the dump has an extension image; a State that it has
// not seen is "not told" (a dump of another program), and what new tasks inherit stays.
//
// Who calls what, when:
//   dump     look() of the process and of every thread before anything runs in them, then ask() into one batch each
//            (its size tells the slot it needs), run it, answer().
//   restore  memory, descriptors and threads are in place, all signals are blocked. settle() of the process, run by its
//            leader; apply() of the process and of its threads, while they still have the credentials of this program;
//            settle() of each thread, run by itself, which ends with its credentials. At the very end arm() of the
//            process. The report signal of a puppet is none that is pending in the images.
#pragma once

#include <any>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/dump_options.h"
#include "base/restore_options.h"
#include "kernel/proc.h"
#include "proto/core.pb.h"
#include "proto/extension.pb.h"
#include "tracee/batch.h"
#include "tracee/tracee.h"

namespace stasis {

enum class Scope { process, thread };

// A stopped thread of a dump, seen from outside.
struct LookView {
  const DumpOptions& options;
  pid_t pid = 0, tid = 0;    // as this program sees them
  Tracee& thread;            // stopped, own state saved
  const ProcStat& stat;      // of the thread
  const ProcStatus& status;  // of the thread
  ProcDir& proc;             // of the process; reading invalidates the text read before
  std::string who;           // "pid 42 (redis-server)", for errors
  // How long the thread had waited in a call with a limit; nothing if it did not, or if nobody knows.
  std::optional<uint64_t> waited_ns{};
  // CLOCK_MONOTONIC as the image has it, in the time namespace of the task: times that are left count from there.
  // Without it they count from when they were asked for.
  std::optional<uint64_t> monotonic_ns{};
  bool compat = false;  // its program is of the narrower width (arch::is_compat())
};

// A puppet thread that is about to become the saved one.
struct SettleView {
  const RestoreOptions& options;
  pid_t pid = 0, tid = 0;              // as this program sees them
  pid_t inner_pid = 0, inner_tid = 0;  // as the task will see them
  std::string who;
  // The clocks as the image has them, in the time namespace of the task: times that are left count from there. Nothing
  // if the task has the clocks of the host.
  std::optional<uint64_t> monotonic_ns{}, boottime_ns{};
  uint64_t clocks_went_on_ns = 0;  // how far they have gone on since
};

// What no image can hold. The dump is refused, unless the user gave up this name, one of kLosses; or it is only told.
struct Loss {
  std::string_view name;
  std::string what;  // "it is restricted by a Landlock domain"
  bool refuses = true;
};

// One row of the registry: the verbs with their types erased. States are values of type Held<Kind>.
struct TaskObject {
  std::string_view name;
  Scope scope;
  void (*prepare)(const ProcStatus& root);
  std::span<const char* const> proc_files;
  void (*make)(std::any&);
  void (*look)(const LookView&, std::any&);
  void (*ask)(const LookView&, SyscallBatch&, std::any&);
  void (*answer)(const SyscallBatch&, std::any&);
  bool (*asks_again)(const std::any&);
  std::optional<Loss> (*loss)(const std::any&);
  void (*encode)(const std::any&, pb::core_entry&);
  void (*decode)(const pb::core_entry&, std::any&);
  void (*encode_extension)(const std::any&, pb::extension_task&);
  void (*decode_extension)(const pb::extension_task&, std::any&);
  void (*settle)(const std::any&, const SettleView&, SyscallBatch&);
  void (*apply)(const std::any&, const SettleView&);
  void (*arm)(const std::any&, const SettleView&, SyscallBatch&);
};

// All task objects, in the order of settling.
const std::vector<TaskObject>& task_objects();

// Before the freeze: asks the processor and this program's own /proc what would else be asked in it.
// `root`: of the first task.
void prepare_task_objects(const ProcStatus& root);
// Files of /proc/PID that the objects of processes will read.
const std::vector<const char*>& task_object_files();

// The states of one thread (or of one process, for Scope::process), by row of the registry.
class ObjectStates {
 public:
  explicit ObjectStates(Scope scope);
  void look(const LookView& view);
  void ask(const LookView& view, SyscallBatch& batch);
  void answer(const SyscallBatch& batch, const std::string& who);
  // Those that are not finished ask once more, and get the answers.
  bool asks_again() const;
  void ask_again(const LookView& view, SyscallBatch& batch);
  void answer_again(const SyscallBatch& batch, const std::string& who);
  // Adds what no image can hold.
  void losses(std::vector<Loss>& out) const;
  void encode(pb::core_entry& core) const;
  void decode(const pb::core_entry& core, const std::string& who);
  void encode_extension(pb::extension_task& task) const;
  void decode_extension(const pb::extension_task& task, const std::string& who);
  void settle(const SettleView& view, SyscallBatch& batch) const;
  void apply(const SettleView& view) const;
  void arm(const SettleView& view, SyscallBatch& batch) const;
  // The state of one kind, for the few places that need it. Kind::scope must be this one's scope.
  template <class Kind>
  const typename Kind::State& get() const;
  // For kinds that an image keeps elsewhere than in the core (Dumpable, ThpDisable).
  template <class Kind>
  typename Kind::State& edit() {
    return const_cast<typename Kind::State&>(get<Kind>());
  }

 private:
  Scope scope_;
  std::vector<std::any> states_;  // parallel to task_objects(); empty for the other scope
};

// ---- making rows -----------------------------------------------------------------------------------------

namespace detail {

struct NoAsk {};
template <class K, class = void>
struct AskOf {
  using type = NoAsk;
};
template <class K>
struct AskOf<K, std::void_t<typename K::Ask>> {
  using type = typename K::Ask;
};

template <class K>
struct Held {
  typename K::State state{};
  typename AskOf<K>::type ask{};
};

template <class K>
Held<K>& held(std::any& a) {
  return *std::any_cast<Held<K>>(&a);
}
template <class K>
const Held<K>& held(const std::any& a) {
  return *std::any_cast<Held<K>>(&a);
}

}  // namespace detail

template <class K>
TaskObject task_object() {
  using detail::held;
  TaskObject row{};
  row.name = K::name;
  row.scope = K::scope;
  row.make = [](std::any& a) { a.emplace<detail::Held<K>>(); };
  if constexpr (requires { &K::prepare; }) row.prepare = K::prepare;
  if constexpr (requires { K::proc_files; }) row.proc_files = K::proc_files;
  if constexpr (requires { &K::look; }) row.look = [](const LookView& v, std::any& a) { K::look(v, held<K>(a).state); };
  if constexpr (requires { &K::ask; })
    row.ask = [](const LookView& v, SyscallBatch& b, std::any& a) { K::ask(v, b, held<K>(a).ask, held<K>(a).state); };
  if constexpr (requires { &K::answer; })
    row.answer = [](const SyscallBatch& b, std::any& a) { K::answer(b, held<K>(a).ask, held<K>(a).state); };
  if constexpr (requires { &K::asks_again; })
    row.asks_again = [](const std::any& a) { return K::asks_again(held<K>(a).state); };
  if constexpr (requires { &K::loss; }) row.loss = [](const std::any& a) { return K::loss(held<K>(a).state); };
  if constexpr (requires { &K::encode; })
    row.encode = [](const std::any& a, pb::core_entry& c) { K::encode(held<K>(a).state, c); };
  if constexpr (requires { &K::decode; })
    row.decode = [](const pb::core_entry& c, std::any& a) { K::decode(c, held<K>(a).state); };
  if constexpr (requires { &K::encode_extension; })
    row.encode_extension = [](const std::any& a, pb::extension_task& t) { K::encode_extension(held<K>(a).state, t); };
  if constexpr (requires { &K::decode_extension; })
    row.decode_extension = [](const pb::extension_task& t, std::any& a) { K::decode_extension(t, held<K>(a).state); };
  if constexpr (requires { &K::settle; })
    row.settle = [](const std::any& a, const SettleView& v, SyscallBatch& b) { K::settle(held<K>(a).state, v, b); };
  if constexpr (requires { &K::apply; })
    row.apply = [](const std::any& a, const SettleView& v) { K::apply(held<K>(a).state, v); };
  if constexpr (requires { &K::arm; })
    row.arm = [](const std::any& a, const SettleView& v, SyscallBatch& b) { K::arm(held<K>(a).state, v, b); };
  return row;
}

template <class Kind>
const typename Kind::State& ObjectStates::get() const {
  for (const std::any& a : states_)
    if (const auto* h = std::any_cast<detail::Held<Kind>>(&a)) return h->state;
  throw std::bad_any_cast();
}

}  // namespace stasis
