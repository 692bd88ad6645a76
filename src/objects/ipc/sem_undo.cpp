#include "objects/ipc/sem_undo.h"

#include <fmt/format.h>
#include <sched.h>
#include <sys/sem.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "base/error.h"
#include "base/log.h"
#include "kernel/process.h"
#include "kernel/uapi.h"

namespace stasis {

namespace {

constexpr int kHighest = 32767;  // SEMVMX: of a value, and of an adjustment
constexpr int kSemStatAny = 20;  // Linux 4.17

union SemArgument {
  int value;
  struct semid_ds* status;
  unsigned short* values;
  struct seminfo* info;
};

// Sets that were used since they were made.
std::vector<SemUndo::Set> used_sets(int last_index) {
  std::vector<SemUndo::Set> out;
  for (int i = 0; i <= last_index; ++i) {
    struct semid_ds status;
    SemArgument argument{.status = &status};
    int id = ::semctl(i, 0, kSemStatAny, argument);
    if (id < 0 && errno == EINVAL) id = ::semctl(i, 0, SEM_STAT, argument);
    if (id < 0 || status.sem_otime == 0) continue;
    SemUndo::Set& set = out.emplace_back();
    set.id = id;
    set.key = static_cast<uint32_t>(status.sem_perm.__key);
    set.values.resize(status.sem_nsems);
    // Values are only for choosing operations that are possible.
    if (::semctl(id, 0, GETALL, SemArgument{.values = set.values.data()}) != 0) std::ranges::fill(set.values, 0);
  }
  return out;
}

// Whether a thread has no list. This program leaves its own, which makes it one without.
bool has_no_list(pid_t tid) {
  return ::unshare(CLONE_SYSVSEM) == 0 && kcmp(gettid(), tid, uapi::kcmp_sysvsem) == 0;
}

// How far a semaphore can be raised, with room for what others do to it meanwhile.
int step_of(const SemUndo::Set& set, size_t semaphore) {
  return std::clamp((kHighest - int{set.values[semaphore]}) / 2, 0, 16384);
}

struct sembuf operation(size_t semaphore, int by, bool undo) {
  return {.sem_num = static_cast<unsigned short>(semaphore),
          .sem_op = static_cast<short>(by),
          .sem_flg = static_cast<short>(IPC_NOWAIT | (undo ? SEM_UNDO : 0))};
}

// The adjustment leaves its range by them if it is `least` or more, times `sign`. The value comes back each time.
void add_operations(std::vector<struct sembuf>& out, const SemUndo::Set& set, size_t semaphore, int sign, int least) {
  const int step = step_of(set, semaphore);
  int left = (sign > 0 ? 32768 : 32769) - least;
  while (left > 0) {
    const int by = std::min(step, left);
    out.push_back(operation(semaphore, by, sign < 0));
    out.push_back(operation(semaphore, -by, sign > 0));
    left -= by;
  }
}

SyscallBatch::Call add_probe(SyscallBatch& batch, const SemUndo::Set& set, std::vector<struct sembuf>& operations,
                             size_t semaphore) {
  // These cannot both be: the whole call never succeeds.
  operations.push_back(operation(semaphore, 1, false));
  operations.push_back(operation(semaphore, 0, false));
  const BatchData data = batch.data(std::as_bytes(std::span(operations)));
  const auto call = batch.call(SYS_semop, {set.id, data, operations.size()});
  operations.clear();
  return call;
}

Error unknown(const SemUndo::Set& set, std::string_view why) {
  return Error(Reason::UNSUPPORTED_STATE,
               fmt::format("what it has to undo to semaphore set {} cannot be found out: {}", set.id, why))
      .remedy(fmt::format("end the use of the set, or remove it (ipcrm -s {})", set.id));
}

}  // namespace

// ---- dump ------------------------------------------------------------------------------------------------

int32_t SemUndo::Search::next() const {
  const int32_t highest = sign > 0 ? kHighest : kHighest + 1;
  if (disproved <= highest) return proved + (disproved - proved) / 2;
  return std::min(highest, std::max(1, 2 * proved));
}

namespace {

// As many semaphores as a call takes.
std::vector<SemUndo::Group> groups_of(const std::vector<SemUndo::Set>& sets, size_t most_operations) {
  std::vector<SemUndo::Group> out;
  for (size_t set = 0; set < sets.size(); ++set)
    for (const int sign : {1, -1})
      for (size_t first = 0, end = 0; first < sets[set].values.size(); first = end) {
        size_t used = 2;
        for (; end < sets[set].values.size(); ++end) {
          const int step = step_of(sets[set], end);
          const size_t needed = step == 0 ? most_operations : 2 * static_cast<size_t>(32768 / step + 1);
          if (used == 2 && used + needed > most_operations)
            throw unknown(sets[set], fmt::format("the value of semaphore {} is too high", end));
          if (used + needed > most_operations) break;
          used += needed;
        }
        out.push_back({set, first, end, sign});
      }
  return out;
}

// It has to fit into what a thread has for batches, beside the rest; its leader has more.
constexpr size_t kMostBytesOfLeader = 4096;
constexpr size_t kMostOperationsOfThread = 80;

}  // namespace

void SemUndo::look(const LookView& view, State& state) {
  struct seminfo info;
  // The number of sets is in an odd place. Without System V semaphores the call fails.
  const int last_index = ::semctl(0, 0, SEM_INFO, SemArgument{.info = &info});
  if (last_index < 0 || info.semusz == 0) return;
  // A leader that has ended shares nothing any more.
  const pid_t first = view.proc.pid();
  if (view.tid != first) {
    state.own_list = kcmp(first, view.tid, uapi::kcmp_sysvsem) != 0;
    if (!state.own_list) return;
  }
  if (has_no_list(view.tid)) return;
  state.shared_with_parent = view.tid == first && kcmp(view.stat.ppid, first, uapi::kcmp_sysvsem) == 0;
  state.sets = used_sets(last_index);
  const auto most = static_cast<size_t>(info.semopm);
  state.groups = groups_of(state.sets, state.own_list ? std::min(most, kMostOperationsOfThread) : most);
}

void SemUndo::ask(const LookView&, SyscallBatch& batch, Ask& ask, State& state) {
  ask.probes.clear();
  ask.searching = state.asked_groups == state.groups.size();
  std::vector<struct sembuf> operations;
  const size_t limit = batch.size() + (state.own_list ? 1 : kMostBytesOfLeader);
  for (; state.asked_groups < state.groups.size() && batch.size() < limit; ++state.asked_groups) {
    const Group& g = state.groups[state.asked_groups];
    for (size_t semaphore = g.first; semaphore < g.end; ++semaphore)
      add_operations(operations, state.sets[g.set], semaphore, g.sign, 1);
    ask.probes.push_back({add_probe(batch, state.sets[g.set], operations, g.first), state.asked_groups});
  }
  if (!ask.searching) return;
  for (size_t i = 0; i < state.searches.size() && batch.size() < limit; ++i) {
    const Search& s = state.searches[i];
    if (s.is_done()) continue;
    add_operations(operations, state.sets[s.set], s.semaphore, s.sign, s.next());
    ask.probes.push_back({add_probe(batch, state.sets[s.set], operations, s.semaphore), i});
  }
}

namespace {

// Whether operations left the range of an adjustment.
bool left_range(const SyscallBatch& batch, SyscallBatch::Call call, const SemUndo::Set& set) {
  const auto result = batch.result(call);
  if (result == -ERANGE) return true;
  // The others: gone meanwhile, or not for this task; then it never used it, or not since it changed its ids.
  if (result != -EAGAIN && result != -EIDRM && result != -EINVAL && result != -EACCES)
    throw unknown(set, "semop() fails in an unexpected way").error_number(static_cast<int>(-result));
  return false;
}

}  // namespace

void SemUndo::answer(const SyscallBatch& batch, const Ask& ask, State& state) {
  for (const Ask::Probe& p : ask.probes) {
    if (ask.searching) {
      Search& s = state.searches[p.index];
      const int32_t tried = s.next();
      (left_range(batch, p.call, state.sets[s.set]) ? s.proved : s.disproved) = tried;
      continue;
    }
    const Group& g = state.groups[p.index];
    if (!left_range(batch, p.call, state.sets[g.set])) continue;
    for (size_t semaphore = g.first; semaphore < g.end; ++semaphore)
      state.searches.push_back({g.set, semaphore, g.sign, 0, g.sign > 0 ? kHighest + 1 : kHighest + 2});
  }
  if (state.searches.empty() || asks_again(state)) return;
  for (const Search& s : state.searches) {
    if (s.proved == 0) continue;
    const Set& set = state.sets[s.set];
    // Somebody raises the value all the time.
    if (s.proved >= kHighest) throw unknown(set, fmt::format("the value of semaphore {} changes", s.semaphore));
    state.adjustments.push_back(
        {static_cast<uint32_t>(set.id), set.key, static_cast<uint32_t>(s.semaphore), s.sign * s.proved});
  }
  if (state.shared_with_parent && !state.adjustments.empty())
    throw Error(Reason::UNSUPPORTED_STATE, "it shares what is undone to semaphores with its parent (CLONE_SYSVSEM)")
        .remedy("let one of them call unshare(CLONE_SYSVSEM), or give the semaphores back before the dump");
}

bool SemUndo::asks_again(const State& state) {
  return state.asked_groups < state.groups.size() ||
         std::ranges::any_of(state.searches, [](const Search& s) { return !s.is_done(); });
}

// ---- images ----------------------------------------------------------------------------------------------

void SemUndo::encode_extension(const State& state, pb::extension_task& task) {
  if (state.adjustments.empty()) return;
  pb::extension_thread& thread = *task.mutable_thread();
  if (state.own_list) thread.set_own_sem_undo(true);
  for (const Adjustment& a : state.adjustments) {
    pb::extension_sem_undo& out = *thread.add_sem_undo();
    out.set_set(a.set);
    out.set_key(a.key);
    out.set_semaphore(a.semaphore);
    out.set_value(a.value);
  }
}

void SemUndo::decode_extension(const pb::extension_task& task, State& state) {
  state.own_list = task.thread().own_sem_undo();
  for (const pb::extension_sem_undo& in : task.thread().sem_undo()) {
    if (in.set() > INT32_MAX || in.semaphore() > UINT16_MAX || in.value() == 0 || std::abs(int64_t{in.value()}) > 32768)
      throw Error(Reason::IMAGE_CORRUPT, "an adjustment of a semaphore makes no sense");
    state.adjustments.push_back({in.set(), in.key(), in.semaphore(), in.value()});
  }
}

// ---- restore ---------------------------------------------------------------------------------------------

namespace {

// False if there is nothing to undo any more.
bool still_exists(const SemUndo::Adjustment& a, const SettleView& view) {
  struct semid_ds status;
  if (::semctl(static_cast<int>(a.set), 0, IPC_STAT, SemArgument{.status = &status}) == 0 &&
      static_cast<uint32_t>(status.sem_perm.__key) == a.key && a.semaphore < status.sem_nsems)
    return true;
  log_message("{}: semaphore set {} is gone, and with it what thread {} has to undo to it", view.who, a.set, view.tid);
  return false;
}

}  // namespace

void SemUndo::settle(const State& state, const SettleView& view, SyscallBatch& batch) {
  if (state.adjustments.empty()) return;
  if (state.own_list) batch.must(SYS_unshare, {CLONE_SYSVSEM});
  for (const Adjustment& a : state.adjustments) {
    if (!still_exists(a, view)) continue;
    const int value = ::semctl(static_cast<int>(a.set), static_cast<int>(a.semaphore), GETVAL);
    const int after = value - a.value;
    if (value >= 0 && (after < 0 || after > kHighest))
      throw Error(
          Reason::RESTORE_CALL_FAILED,
          fmt::format("semaphore {} of set {} has the value {}: its operations, {} in sum, cannot be made again",
                      a.semaphore, a.set, value, -a.value))
          .object(view.who)
          .remedy("let who holds the semaphore now give it back, and restore again");
    // What one operation can do is less than what they can in sum.
    for (int left = -a.value; left != 0;) {
      const int by = std::clamp(left, -kHighest, kHighest);
      const BatchData data = batch.object(operation(a.semaphore, by, true));
      batch.must(SYS_semop, {a.set, data, 1});
      left -= by;
    }
  }
}

}  // namespace stasis
