#include "objects/thread_births.h"

#include <sched.h>

#include <algorithm>
#include <map>

namespace stasis {

namespace {

// The thread that clones the first one with these tables: it shares with that what it can.
size_t cloner_of(const ThreadTables& wanted, std::span<const ThreadTables> threads) {
  const ThreadTables& leader = threads.front();
  for (const ThreadTables between : {ThreadTables{wanted.files, leader.fs}, ThreadTables{leader.files, wanted.fs}})
    if (const auto at = std::ranges::find(threads, between); between != wanted && at != threads.end())
      return static_cast<size_t>(at - threads.begin());
  return 0;
}

uint64_t shared_by(const ThreadTables& a, const ThreadTables& b) {
  return (a.files == b.files ? uint64_t{CLONE_FILES} : 0) | (a.fs == b.fs ? uint64_t{CLONE_FS} : 0);
}

// Whether threads that are born like this share what they are to share.
bool leads_there(std::span<const ThreadTables> threads, std::span<const ThreadBirth> births) {
  std::map<uint32_t, size_t> files{{threads.front().files, 0}}, fs{{threads.front().fs, 0}};
  for (const ThreadBirth& b : births) {
    // A table that is not shared at birth is a new one, and must be so.
    if ((b.shared & CLONE_FILES) == 0 && !files.try_emplace(threads[b.thread].files, b.thread).second) return false;
    if ((b.shared & CLONE_FS) == 0 && !fs.try_emplace(threads[b.thread].fs, b.thread).second) return false;
  }
  return true;
}

}  // namespace

std::vector<ThreadBirth> plan_thread_births(std::span<const ThreadTables> threads) {
  std::vector<ThreadBirth> births;
  std::vector<size_t> depth(threads.size());
  for (size_t i = 1; i < threads.size(); ++i) {
    const size_t first = static_cast<size_t>(std::ranges::find(threads, threads[i]) - threads.begin());
    const size_t cloner = first < i ? first : cloner_of(threads[i], threads);
    births.push_back({i, cloner, shared_by(threads[i], threads[cloner])});
  }
  // The first one with some tables may be cloned by a thread with a higher number, but never in a circle: from the
  // leader's two tables over one of them to none.
  const auto depth_of = [&](const auto& self, size_t thread) -> size_t {
    return thread == 0 ? 0 : 1 + self(self, births[thread - 1].cloner);
  };
  for (const ThreadBirth& b : births) depth[b.thread] = depth_of(depth_of, b.thread);
  std::ranges::stable_sort(births, {}, [&](const ThreadBirth& b) { return depth[b.thread]; });
  if (!leads_there(threads, births)) births.clear();
  return births;
}

}  // namespace stasis
