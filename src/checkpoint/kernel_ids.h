// Small numbers for kernel objects that tasks share: address spaces, descriptor tables, fs structs, handler tables and
// namespaces. The program that dumps counts as the first task and takes the first numbers.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "kernel/proc.h"
#include "proto/core.pb.h"

namespace stasis {

// Order of the first eight numbers.
enum class Namespace { pid, net, ipc, uts, time, mnt, user, cgroup };
inline constexpr size_t kNamespaces = 8;
// "pid", as in /proc/PID/ns.
const char* namespace_name(Namespace ns);

struct KernelIds {
  uint32_t vm = 0, files = 0, fs = 0, sighand = 0;
  std::array<uint32_t, kNamespaces> ns{};
  uint32_t of(Namespace which) const { return ns[static_cast<size_t>(which)]; }
};
void encode(const KernelIds& ids, pb::task_kobj_ids_entry& out);

// Inode numbers of the namespaces of a task, 0 where the kernel lacks the kind; by order of Namespace.
using NamespaceInodes = std::array<uint64_t, kNamespaces>;
NamespaceInodes read_namespaces(const ProcDir& proc, int pidfd);

class KernelIdTable {
 public:
  KernelIdTable();

  // Numbers for the namespaces of a task; the others are 0.
  KernelIds of(const NamespaceInodes& namespaces);
  // Fills in the numbers of what stopped processes share. One job for each kind of object: they may run at the same
  // time.
  std::vector<std::function<void()>> sharing_jobs(const std::vector<std::pair<pid_t, KernelIds*>>& processes);
  const KernelIds& own() const { return own_; }

 private:
  // Processes ordered by the kernel's own order of one kind of object (kcmp).
  struct Sharing {
    int kcmp_type;
    uint32_t KernelIds::*field;
    std::vector<std::pair<pid_t, uint32_t>> sorted;
    uint32_t next = 1;
    uint32_t number(pid_t pid);
  };
  uint32_t namespace_number(size_t which, uint64_t inode);

  std::array<Sharing, 4> sharing_;
  std::map<std::pair<size_t, uint64_t>, uint32_t> namespaces_;
  uint32_t next_namespace_ = 1;
  KernelIds own_;
  // Held open: the kernel then finds the files of these namespaces, which most tasks share, instead of making them.
  std::array<Fd, kNamespaces> held_;
};

}  // namespace stasis
