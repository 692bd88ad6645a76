#include "checkpoint/kernel_ids.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/error.h"
#include "kernel/process.h"

namespace stasis {

namespace {

constexpr std::array<const char*, kNamespaces> kNames = {"pid", "net", "ipc", "uts", "time", "mnt", "user", "cgroup"};
constexpr std::array<const char*, kNamespaces> kPaths = {"ns/pid",  "ns/net", "ns/ipc",  "ns/uts",
                                                         "ns/time", "ns/mnt", "ns/user", "ns/cgroup"};

constexpr std::array<unsigned long, kNamespaces> kPidfdRequests = {
    uapi::pidfd_get_pid_namespace,  uapi::pidfd_get_net_namespace,   uapi::pidfd_get_ipc_namespace,
    uapi::pidfd_get_uts_namespace,  uapi::pidfd_get_time_namespace,  uapi::pidfd_get_mnt_namespace,
    uapi::pidfd_get_user_namespace, uapi::pidfd_get_cgroup_namespace};

}  // namespace

const char* namespace_name(Namespace ns) {
  return kNames[static_cast<size_t>(ns)];
}

void encode(const KernelIds& ids, pb::task_kobj_ids_entry& out) {
  out.set_vm_id(ids.vm);
  out.set_files_id(ids.files);
  out.set_fs_id(ids.fs);
  out.set_sighand_id(ids.sighand);
  out.set_pid_ns_id(ids.of(Namespace::pid));
  out.set_net_ns_id(ids.of(Namespace::net));
  out.set_ipc_ns_id(ids.of(Namespace::ipc));
  out.set_uts_ns_id(ids.of(Namespace::uts));
  out.set_mnt_ns_id(ids.of(Namespace::mnt));
  out.set_user_ns_id(ids.of(Namespace::user));
  out.set_cgroup_ns_id(ids.of(Namespace::cgroup));
  out.set_time_ns_id(ids.of(Namespace::time));
}

KernelIdTable::KernelIdTable()
    : sharing_{Sharing{uapi::kcmp_vm, &KernelIds::vm, {}}, Sharing{uapi::kcmp_files, &KernelIds::files, {}},
               Sharing{uapi::kcmp_fs, &KernelIds::fs, {}}, Sharing{uapi::kcmp_sighand, &KernelIds::sighand, {}}} {
  const Fd pidfd(pidfd_open(getpid()));
  own_ = of(read_namespaces(ProcDir(getpid()), pidfd.get()));
  for (const auto& job : sharing_jobs({{getpid(), &own_}})) job();
  for (size_t i = 0; i < kNamespaces; ++i) held_[i].reset(ioctl(pidfd.get(), kPidfdRequests[i], 0));
}

uint32_t KernelIdTable::Sharing::number(pid_t pid) {
  const auto at = std::lower_bound(sorted.begin(), sorted.end(), pid, [&](const auto& have, pid_t wanted) {
    const int order = kcmp(have.first, wanted, kcmp_type);
    if (order < 0)
      throw Error(Reason::FEATURE_MISSING, "kcmp failed").object(fmt::format("pid {}", wanted)).error_number(-order);
    return order == 1;
  });
  if (at != sorted.end() && kcmp(at->first, pid, kcmp_type) == 0) return at->second;
  return sorted.insert(at, {pid, next++})->second;
}

uint32_t KernelIdTable::namespace_number(size_t which, uint64_t inode) {
  const auto [at, fresh] = namespaces_.try_emplace({which, inode}, next_namespace_);
  if (fresh) ++next_namespace_;
  return at->second;
}

KernelIds KernelIdTable::of(const NamespaceInodes& namespaces) {
  KernelIds ids;
  for (size_t i = 0; i < kNamespaces; ++i)
    if (namespaces[i] != 0) ids.ns[i] = namespace_number(i, namespaces[i]);
  return ids;
}

std::vector<std::function<void()>> KernelIdTable::sharing_jobs(
    const std::vector<std::pair<pid_t, KernelIds*>>& processes) {
  std::vector<std::function<void()>> jobs;
  for (Sharing& s : sharing_)
    jobs.emplace_back([&s, processes] {
      for (const auto& [pid, ids] : processes) ids->*s.field = s.number(pid);
    });
  return jobs;
}

NamespaceInodes read_namespaces(const ProcDir& proc, int pidfd) {
  NamespaceInodes out{};
  for (size_t i = 0; i < kNamespaces; ++i) {
    struct stat st;
    // Linux 6.11 gives a descriptor from the pidfd: a third of the cost of looking up /proc/PID/ns for the first time.
    const Fd ns(ioctl(pidfd, kPidfdRequests[i], 0));
    if (ns ? fstat(ns.get(), &st) == 0 : fstatat(proc.fd(), kPaths[i], &st, 0) == 0) {
      out[i] = st.st_ino;
    } else if (errno != ENOENT) {
      throw Error(Reason::SYSTEM, fmt::format("cannot look at the {} namespace", kNames[i]))
          .object(proc.describe())
          .error_number(errno);
    }
  }
  return out;
}

}  // namespace stasis
