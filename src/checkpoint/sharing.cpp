#include "checkpoint/sharing.h"

#include <fmt/format.h>

#include <array>
#include <map>
#include <set>

#include "base/error.h"

namespace stasis {

void number_thread_tables(FrozenProcesses processes, KernelIdTable& ids) {
  std::vector<std::pair<pid_t, KernelIds*>> sharers;
  std::map<uint32_t, const FrozenProcess*> files, fs;  // by the first process that has them
  for (auto& p : processes) {
    files.try_emplace(p->ids.files, p.get()), fs.try_emplace(p->ids.fs, p.get());
    for (FrozenThread& t : p->threads)
      if (t.own_tables) sharers.emplace_back(t.tracee->tid(), &t.own_tables->ids);
  }
  if (sharers.empty()) return;
  for (const auto& job : ids.sharing_jobs(std::move(sharers))) job();
  // 1 is this program's.
  const auto elsewhere = [](const auto& owners, uint32_t id, const FrozenProcess* p) {
    return id == 1 || owners.at(id) != p;
  };
  for (auto& p : processes) {
    p->check_thread_tables();
    for (FrozenThread& t : p->threads) {
      if (!t.own_tables) continue;
      const KernelIds& own = t.own_tables->ids;
      files.try_emplace(own.files, p.get()), fs.try_emplace(own.fs, p.get());
      if ((own.files != p->ids.files && elsewhere(files, own.files, p.get())) ||
          (own.fs != p->ids.fs && elsewhere(fs, own.fs, p.get())))
        throw Error(Reason::UNSUPPORTED_STATE,
                    fmt::format("its thread {} shares descriptors or a working directory with another process, but "
                                "not with its own",
                                t.tracee->tid()))
            .object(p->describe())
            .remedy("let one of them end, or call unshare()");
    }
  }
}

size_t count_descriptors(FrozenProcesses processes) {
  std::set<uint32_t> tables;
  size_t count = 0;
  for (const auto& p : processes)
    if (tables.insert(p->ids.files).second) count += p->descriptors.size();
  return count;
}

void check_sharing(FrozenProcesses processes) {
  constexpr const char* kWhat[] = {"its memory", "its signal handlers", "its descriptor table",
                                   "its working directory and root"};
  // Numbers are given in the order of appearance, this program's first: one that is not higher than all before is
  // shared. Descriptors and directories may be shared within the tree, but not with this program.
  std::array<uint32_t, 4> highest{1, 1, 1, 1};
  for (const auto& p : processes) {
    const std::array<uint32_t, 4> numbers{p->ids.vm, p->ids.sighand, p->ids.files, p->ids.fs};
    for (size_t k = 0; k < numbers.size(); ++k) {
      if (numbers[k] <= (k < 2 ? highest[k] : 1))
        throw Error(Reason::UNSUPPORTED_STATE, fmt::format("it shares {} with another process", kWhat[k]))
            .object(p->describe())
            .remedy("this version saves processes that share none of them");
      highest[k] = numbers[k];
    }
  }
}

}  // namespace stasis
