#include "restore/plan.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <functional>
#include <iterator>
#include <optional>
#include <set>

#include "arch/arch.h"
#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/workers.h"
#include "image/extension.h"
#include "kernel/features.h"
#include "kernel/proc.h"
#include "memory/vdso.h"
#include "memory/vma_extension.h"
#include "objects/cpu_info.h"
#include "objects/task/dumpable.h"
#include "objects/task/parent_death_signal.h"
#include "objects/task/personality.h"
#include "objects/task/registers.h"
#include "objects/task/signal_actions.h"
#include "objects/task/thp_disable.h"
#include "proto/inventory.pb.h"
#include "proto/pstree.pb.h"
#include "tracee/area.h"

namespace stasis {

std::string PlannedProcess::describe() const {
  return fmt::format("pid {} ({})", pid, name);
}

std::vector<pid_t> PlannedProcess::thread_order() const {
  std::vector<pid_t> order;
  if (leader_has_ended()) order.push_back(pid);
  for (const PlannedThread& t : threads) order.push_back(t.tid);
  return order;
}

uint64_t PlannedProcess::address_end() const {
  return arch::address_end(compat, states.get<Personality>().value);
}

namespace {

class PlanReader {
 public:
  PlanReader(ImageStore& store, const RestoreOptions& options) : store_(store), options_(options) {}

  RestorePlan read() {
    const pb::inventory_entry inventory = read_inventory(store_);
    verify_manifest(store_);
    check_cpu();
    read_tree();
    extension_ = Extension::read(store_);
    pb::seccomp_entry filters;
    if (store_.read_single(ImageKind::SECCOMP, 0, filters)) plan_.filters.decode(filters);
    read_processes();
    if (extension_) {
      extension_->expect_all_asked();
      plan_.extension = extension_->head();
      for (const pb::extension_loss& l : extension_->head().left_out())
        log_message("The dump left out ({}): {}: {}{}", l.name(), l.first_task(), l.what(),
                    l.tasks() > 1 ? fmt::format(" (and {} more tasks)", l.tasks() - 1) : std::string());
    }
    check_widths();
    check_namespaces(inventory);
    read_attached_segments(inventory.root_ids().ipc_ns_id());
    check_sharing();
    plan_threads();
    plan_births();
    check_pids();
    place_area();
    if (options_.detached && !options_.sibling && !options_.parent_stays) drop_death_signal_of_root();
    return std::move(plan_);
  }

 private:
  // Without being asked for it only what the saved state uses is compared, by who loads it.
  void check_cpu() const {
    if (!options_.cpu.image) return;
    pb::cpuinfo_entry saved;
    store_.require_single(ImageKind::CPUINFO, 0, saved);
    require_features(saved, describe_this_cpu(), options_.cpu);
  }

  void read_tree() {
    ImageReader reader = store_.require(ImageKind::PSTREE);
    std::map<pid_t, PlannedProcess*> by_pid;
    std::set<pid_t> ids;
    for (pb::pstree_entry e; reader.next(e);) {
      auto p = std::make_unique<PlannedProcess>();
      p->pid = static_cast<pid_t>(e.pid());
      p->pgid = static_cast<pid_t>(e.pgid());
      p->sid = static_cast<pid_t>(e.sid());
      const auto parent = by_pid.find(static_cast<pid_t>(e.ppid()));
      if (plan_.processes.empty() != (e.ppid() == 0) || (e.ppid() != 0 && parent == by_pid.end()))
        reader.corrupt(fmt::format("the parent {} of pid {} is not described before it", e.ppid(), e.pid()));
      if (e.ppid() != 0) {
        p->parent = parent->second;
      }
      if (e.threads_size() == 0 || static_cast<pid_t>(e.threads(0)) != p->pid)
        reader.corrupt(fmt::format("the first thread of pid {} is not its leader", e.pid()));
      for (uint32_t tid : e.threads()) {
        if (tid == 0 || tid > INT32_MAX || !ids.insert(static_cast<pid_t>(tid)).second)
          reader.corrupt(fmt::format("the id {} is not valid or appears twice", tid));
        p->threads.emplace_back(static_cast<pid_t>(tid));
      }
      plan_.threads += p->threads.size();
      by_pid[p->pid] = p.get();
      plan_.processes.push_back(std::move(p));
    }
    if (plan_.processes.empty()) reader.corrupt("it describes no process");
  }

  pb::core_entry read_core(pid_t tid) {
    pb::core_entry core;
    store_.require_single(ImageKind::CORE, static_cast<uint64_t>(tid), core);
    if (core.mtype() != CpuRegisters::architecture)
      throw Error(Reason::IMAGE_ARCH, fmt::format("the images come from a machine of type {}, this one is {}",
                                                  pb::core_entry::march_Name(core.mtype()), arch::name()))
          .object(fmt::format("core-{}.img", tid))
          .remedy("restore on a machine of that type");
    return core;
  }

  void read_processes() {
    Workers workers;
    constexpr size_t kThreadsPerJob = 64;
    std::vector<std::function<void()>> jobs;
    for (auto& p : plan_.processes) {
      jobs.emplace_back([this, p = p.get()] { read_process(*p); });
      for (size_t first = 1; first < p->threads.size(); first += kThreadsPerJob)
        jobs.emplace_back([this, p = p.get(), first] {
          read_threads(*p, first, std::min(first + kThreadsPerJob, p->threads.size()));
        });
    }
    workers.start(std::move(jobs));
    workers.finish();
    for (auto& p : plan_.processes) {
      if (!p->task.leader_status || p->zombie) continue;
      if (p->threads.size() < 2)
        throw Error(Reason::IMAGE_CORRUPT, "all threads of a process that lives have ended").object(p->describe());
      p->threads.erase(p->threads.begin());
    }
  }

  void read_process(PlannedProcess& p) {
    const auto id = static_cast<uint64_t>(p.pid);
    read_threads(p, 0, 1);
    if (p.zombie) return;
    store_.require_single(ImageKind::IDS, id, p.ids);
    store_.require_single(ImageKind::MM, id, p.mm);
    store_.require_single(ImageKind::FS, id, p.fs);
    if (p.mm.has_dumpable()) p.states.edit<Dumpable>().value = p.mm.dumpable();
    p.states.edit<ThpDisable>().disabled = p.mm.thp_disabled();
    p.vmas = decode_vmas(p.mm, fmt::format("mm-{}.img", id));
    if (extension_)
      decode_extension(extension_->task(static_cast<uint32_t>(p.pid), true).mm(), p.vmas.areas, p.policies,
                       fmt::format("the task {} of extension.img", p.pid));
    p.pages = PagemapReader::open(store_, ImageKind::PAGEMAP, id);
    const std::string pages = fmt::format("pagemap-{}.img", id);
    if (!p.pages) throw Error(Reason::IMAGE_MISSING, "its page map is not there").object(pages);
    p.fill.emplace(*p.pages, p.vmas.areas, pages);
  }

  void read_threads(PlannedProcess& p, size_t first, size_t end) {
    for (size_t i = first; i < end; ++i) {
      PlannedThread& t = p.threads[i];
      const pb::core_entry core = read_core(t.tid);
      const std::string image = fmt::format("core-{}.img", t.tid);
      if (i == 0) {
        if (!core.has_tc()) throw Error(Reason::IMAGE_CORRUPT, "it has no part of the whole task").object(image);
        TaskState::decode(core, p.task);
        p.name = p.task.comm;
        p.zombie = p.task.dead();
        if (p.zombie && (p.parent == nullptr || p.threads.size() > 1))
          throw Error(Reason::IMAGE_CORRUPT, "a dead process is the root of the tree or has threads").object(image);
        if (p.zombie && extension_)
          TaskState::decode_extension(extension_->task(static_cast<uint32_t>(p.pid), true), p.task);
        if (p.zombie && (p.task.exit_signal == SIGSTOP || p.task.exit_signal == SIGKILL))
          throw Error(Reason::IMAGE_UNSUPPORTED, "it is dead, and the signal that told its parent would act again")
              .object(image);
        if (p.zombie) return;
        p.states.decode(core, image);
        if (extension_ && extension_->task(static_cast<uint32_t>(p.pid), true).process().has_leader_status()) {
          p.states.decode_extension(extension_->task(static_cast<uint32_t>(p.pid), true),
                                    fmt::format("the task {} of extension.img", p.pid));
          p.task = p.states.get<TaskState>();
          return;
        }
      }
      if (!core.has_thread_core()) throw Error(Reason::IMAGE_CORRUPT, "it has no thread part").object(image);
      t.states.decode(core, image);
      if (extension_) read_extension(p, t);
      if (i == 0) p.task = p.states.get<TaskState>();
      if (const auto filter = t.states.get<Seccomp>().filter) t.filters = plan_.filters.chain(*filter);
    }
  }

  void read_extension(PlannedProcess& p, PlannedThread& t) {
    const pb::extension_task& task = extension_->task(static_cast<uint32_t>(t.tid), t.tid == p.pid);
    const std::string who = fmt::format("the task {} of extension.img", t.tid);
    if (t.tid == p.pid) p.states.decode_extension(task, who);
    t.states.decode_extension(task, who);
    if (!task.thread().has_tables()) return;
    const pb::extension_tables& tables = task.thread().tables();
    if (t.tid == p.pid || tables.has_cwd_id() != tables.has_root_id() || tables.has_cwd_id() != tables.has_umask())
      throw Error(Reason::IMAGE_CORRUPT, "its tables are incomplete, or those of a leader").object(who);
    t.tables = {tables.files_id(), tables.fs_id()};
    if (!tables.has_cwd_id()) return;
    t.fs.set_cwd_id(tables.cwd_id());
    t.fs.set_root_id(tables.root_id());
    t.fs.set_umask(tables.umask());
  }

  // In which order threads with tables of their own are cloned.
  void plan_threads() {
    std::map<uint32_t, const PlannedProcess*> files, fs;
    for (const auto& p : plan_.processes)
      if (!p->zombie) files.try_emplace(p->ids.files_id(), p.get()), fs.try_emplace(p->ids.fs_id(), p.get());
    for (const auto& p : plan_.processes) {
      if (std::ranges::none_of(p->threads, [](const PlannedThread& t) { return t.tables.has_value(); })) continue;
      std::vector<ThreadTables> tables;
      for (const PlannedThread& t : p->threads) {
        tables.push_back(t.tables.value_or(ThreadTables{p->ids.files_id(), p->ids.fs_id()}));
        const auto [of_files, of_fs] = tables.back();
        const auto elsewhere = [&](auto& owners, uint32_t id, uint32_t own) {
          return id != own && owners.try_emplace(id, p.get()).first->second != p.get();
        };
        if (elsewhere(files, of_files, p->ids.files_id()) || elsewhere(fs, of_fs, p->ids.fs_id()) ||
            t.filters != p->threads.front().filters)
          refuse_tables(*p, t, "has tables of another process, or seccomp filters and tables of its own");
        if ((of_fs == p->ids.fs_id()) == t.fs.has_cwd_id() && t.tables)
          throw Error(Reason::IMAGE_CORRUPT, fmt::format("the thread {} has no directories, or two", t.tid))
              .object(p->describe());
      }
      p->thread_births = plan_thread_births(tables);
      if (p->thread_births.empty())
        refuse_tables(*p, p->threads.back(), "or others share descriptors and directories crosswise");
    }
  }

  [[noreturn]] static void refuse_tables(const PlannedProcess& p, const PlannedThread& t, const char* what) {
    throw Error(Reason::IMAGE_UNSUPPORTED, fmt::format("its thread {} {}", t.tid, what)).object(p.describe());
  }

  // What a program of the narrower width needs, and that all parts of it are.
  void check_widths() {
    bool any = false;
    for (const auto& p : plan_.processes) {
      if (p->zombie) continue;
      const auto is_compat = [](const PlannedThread& t) {
        return arch::is_compat(t.states.get<CpuRegisters>().general);
      };
      p->compat = is_compat(p->threads.front());
      any |= p->compat;
      if (std::ranges::any_of(p->threads, [&](const auto& t) { return is_compat(t) != p->compat; }) ||
          p->states.get<SignalActions>().compat != p->compat)
        throw Error(Reason::IMAGE_UNSUPPORTED, "its threads and handlers are not all of 32-bit or of 64-bit code")
            .object(p->describe());
      if (!p->vmas.areas.empty() && p->compat && p->vmas.areas.back().end > p->address_end())
        throw Error(Reason::IMAGE_CORRUPT, "a 32-bit program has memory at 64-bit addresses").object(p->describe());
    }
    if (!any) return;
    const FeatureResult kernel = probe(*find_feature("compat_cr"));
    if (!kernel.supported)
      throw Error(Reason::FEATURE_MISSING, "the images hold 32-bit programs: " + kernel.why)
          .remedy("restore on a kernel that has CONFIG_IA32_EMULATION, and has not switched it off");
  }

  void check_sharing() const {
    std::map<std::pair<int, uint32_t>, const PlannedProcess*> seen;
    for (const auto& p : plan_.processes) {
      if (p->zombie) continue;
      for (const auto& key : {std::pair{0, p->ids.vm_id()}, std::pair{1, p->ids.sighand_id()}}) {
        const auto [at, fresh] = seen.try_emplace(key, p.get());
        if (!fresh)
          throw Error(Reason::IMAGE_UNSUPPORTED,
                      fmt::format("it shares its memory or signal handlers with pid {}", at->second->pid))
              .object(p->describe())
              .remedy("this version restores processes that share neither");
      }
    }
  }

  void read_attached_segments(uint32_t ipc_namespace) {
    plan_.segments = read_segments(store_, ipc_namespace, extension_ ? &extension_->head() : nullptr);
    for (const auto& p : plan_.processes)
      for (const Vma& v : p->vmas.areas) {
        if (!v.is_segment()) continue;
        const auto at = plan_.segments.find(v.shmid);
        if (at == plan_.segments.end() || v.pgoff_bytes >= at->second.mapped_bytes())
          throw Error(Reason::IMAGE_CORRUPT,
                      fmt::format("mapping {} is of no shared memory segment of the images", ::stasis::describe(v)))
              .object(fmt::format("mm-{}.img", p->pid));
      }
  }

  // Every namespace of the tree must be the one that the dumping program was in; the clocks are the exception.
  void check_namespaces(const pb::inventory_entry& inventory) {
    const pb::task_kobj_ids_entry& host = inventory.root_ids();
    for (const auto& p : plan_.processes) {
      if (p->zombie) continue;
      const pb::task_kobj_ids_entry& t = p->ids;
      const std::pair<const char*, bool> different[] = {
          {"pid", t.pid_ns_id() != host.pid_ns_id()},          {"net", t.net_ns_id() != host.net_ns_id()},
          {"ipc", t.ipc_ns_id() != host.ipc_ns_id()},          {"uts", t.uts_ns_id() != host.uts_ns_id()},
          {"mnt", t.mnt_ns_id() != host.mnt_ns_id()},          {"user", t.user_ns_id() != host.user_ns_id()},
          {"cgroup", t.cgroup_ns_id() != host.cgroup_ns_id()},
      };
      for (const auto& [name, is] : different)
        if (is)
          throw Error(Reason::IMAGE_UNSUPPORTED, fmt::format("it has a {} namespace of its own", name))
              .object(p->describe())
              .remedy("this version restores tasks of the host");
      if (t.time_ns_id() != plan_.root().ids.time_ns_id())
        throw Error(Reason::IMAGE_UNSUPPORTED, "it has another time namespace than the root of its tree")
            .object(p->describe());
    }
    if (!host.has_time_ns_id()) return;
    const bool own_clocks = plan_.root().ids.time_ns_id() != host.time_ns_id();
    pb::timens_entry clocks;
    if (store_.read_single(ImageKind::TIMENS, own_clocks ? plan_.root().ids.time_ns_id() : 0, clocks))
      plan_.clocks = clocks;
    else if (own_clocks)
      throw Error(Reason::IMAGE_MISSING, "the clocks of the tree's time namespace are not there")
          .object(fmt::format("timens-{}.img", plan_.root().ids.time_ns_id()));
  }

  // The order of births, sessions and groups.
  void plan_births() {
    std::map<const PlannedProcess*, int> index;
    std::vector<TreeProcess> tree;
    for (const auto& p : plan_.processes) {
      index[p.get()] = static_cast<int>(tree.size());
      tree.push_back({p->pid, p->pgid, p->sid, p->parent == nullptr ? kOutside : index.at(p->parent),
                      p->zombie ? 0 : p->ids.files_id(), p->zombie ? 0 : p->ids.fs_id(), p->task.exit_signal});
    }
    const auto is_process = [&](pid_t pid) { return std::ranges::any_of(tree, [&](auto& p) { return p.pid == pid; }); };
    const PlannedProcess& root = plan_.root();
    TreeSurroundings outside;
    if (!is_process(root.sid)) {
      if (options_.shell_job)
        outside = {root.sid, is_process(root.pgid) ? 0 : root.pgid};
      else if (holder_of(root.sid) || kill(-root.sid, 0) == 0)
        throw Error(Reason::NOT_SESSION_LEADER,
                    fmt::format("it belongs to session {}, which exists outside of the images", root.sid))
            .object(root.describe())
            .remedy("add --shell-job to put the tree into the caller's session");
    }
    plan_.tree = plan_tree(tree, outside, Reason::IMAGE_UNSUPPORTED);
    // A group may have become an orphan since the stop, when a parent left the session. Only SIGSTOP stops there.
    for (const auto& p : plan_.processes)
      if (p->task.stop_signal != 0 && outside.sid != p->sid && is_orphaned_group(tree, p->pgid))
        p->task.stop_signal = SIGSTOP;
    if (options_.sibling && plan_.tree.nodes.front().creator != kOutside)
      throw Error(Reason::OPTION_NOT_SUPPORTED, "a root whose session leader is dead cannot become a sibling")
          .object(root.describe())
          .remedy("restore it as a child, or with --shell-job in the caller's session");
    for (size_t i = 0; i < plan_.processes.size(); ++i) {
      int up = plan_.tree.nodes[i].creator;
      const auto has_memory = [&](int node) {
        const int process = plan_.tree.nodes[static_cast<size_t>(node)].process;
        return process >= 0 && !plan_.processes[static_cast<size_t>(process)]->zombie;
      };
      while (up != kOutside && !has_memory(up)) up = plan_.tree.nodes[static_cast<size_t>(up)].creator;
      PlannedProcess& p = *plan_.processes[i];
      if (up != kOutside) p.origin = plan_.processes[static_cast<size_t>(up)].get();
      if (!p.zombie) p.executes = !p.same_address_space(p.origin != nullptr ? *p.origin : root);
      if (p.executes) p.origin = nullptr;
    }
    // Executing a program gives a task its own table.
    for (const TreeStep& step : plan_.tree.steps)
      if (step.kind == TreeStep::Kind::create && (step.tables & CLONE_FILES) != 0 &&
          std::ranges::any_of(plan_.processes, [&](const auto& p) {
            return p->executes && p->pid == plan_.tree.nodes[static_cast<size_t>(step.node)].pid;
          }))
        throw Error(Reason::IMAGE_UNSUPPORTED, "a 32-bit and a 64-bit program share a table of descriptors")
            .object(fmt::format("pid {}", plan_.tree.nodes[static_cast<size_t>(step.node)].pid));
    for (const auto& p : plan_.processes)
      if (p->executes && p->task.exit_signal != SIGCHLD)
        throw Error(Reason::IMAGE_UNSUPPORTED, "it has an exit signal of its own, and another width than its parent")
            .object(p->describe());
  }

  void check_pids() {
    const auto deadline = Clock::now() + kReapPatience;
    std::vector<pid_t> ids;
    for (const auto& p : plan_.processes) std::ranges::copy(p->thread_order(), std::back_inserter(ids));
    for (const TreeNode& n : plan_.tree.nodes)
      if (n.temporary() && n.pid != 0) ids.push_back(n.pid);
    for (pid_t id : ids)
      while (const auto holder = holder_of(id)) {
        if (!has_ended(*holder) || Clock::now() > deadline) throw taken(id, *holder);
        check_interrupted();
        usleep(1000);
      }
    for (const TreeNode& n : plan_.tree.nodes) {
      // A process that left the tree may be in the group still; the kernel keeps its number then.
      if (n.pid > 1 && kill(-n.pid, 0) == 0)
        throw Error(Reason::PID_TAKEN, "the id is in use as that of a process group, whose leader is gone")
            .object(fmt::format("pid {}", n.pid))
            .remedy(fmt::format("end the processes of that group (pgrep -g {}), or restore with --new-pid-namespace",
                                n.pid));
    }
  }

  // Killed by a dump a moment ago: whoever inherits it (often init) may take a while to wait for it.
  static constexpr auto kReapPatience = std::chrono::seconds(3);

  static std::optional<ProcStat> holder_of(pid_t tid) {
    if (kill(tid, 0) != 0 && errno != EPERM) return std::nullopt;
    try {
      return parse_stat(ProcDir(tid).read("stat"));
    } catch (const Error&) {
      // It is gone by now, or /proc does not show it.
      if (kill(tid, 0) != 0 && errno != EPERM) return std::nullopt;
      return ProcStat{.pid = tid, .comm = "a process that /proc does not show"};
    }
  }

  static bool has_ended(const ProcStat& stat) {
    constexpr uint32_t kExiting = 4;  // PF_EXITING
    return stat.zombie() || (stat.flags & kExiting) != 0;
  }

  static Error taken(pid_t tid, const ProcStat& holder) {
    if (has_ended(holder))
      return Error(Reason::PID_TAKEN, fmt::format("the id is in use by {}, which has ended, but pid {} has not waited "
                                                  "for it",
                                                  holder.comm, holder.ppid))
          .object(fmt::format("pid {}", tid))
          .remedy("restore again when that parent has waited for it, or end the parent");
    return Error(Reason::PID_TAKEN, fmt::format("the id is in use by {}", holder.comm))
        .object(fmt::format("pid {}", tid))
        .remedy("end the process that has it, or restore with --new-pid-namespace");
  }

  // The root's parent is this program, whose end is not the event that the saved program waits for. The next parent is
  // one that adopts orphans: it does not end. A sibling has the caller for a parent, whose end is meant.
  void drop_death_signal_of_root() {
    for (PlannedThread& t : plan_.root().threads) {
      int& signal = t.states.edit<ParentDeathSignal>().signal;
      if (signal != 0)
        log_warning("{}: thread {} is not told of its parent's end any more (signal {}); --restore-sibling keeps that",
                    plan_.root().describe(), t.tid, signal);
      signal = 0;
    }
  }

  void place_area() {
    size_t most_threads = 1;
    for (const auto& p : plan_.processes) most_threads = std::max(most_threads, p->threads.size());
    plan_.area_slots = 1 + static_cast<unsigned>(std::min<size_t>(most_threads - 1, kThreadSlots));
    uint64_t end = arch::address_end(false, 0);
    for (const auto& p : plan_.processes)
      if (!p->zombie) end = std::min(end, p->address_end());
    plan_.area_address = find_free_range(
        taken_ranges(plan_), BatchArea::bytes_for(plan_.area_slots, kLeaderSlotBytes, kThreadSlotBytes), end);
    if (plan_.area_address == 0)
      throw Error(Reason::NO_ROOM_FOR_BATCH, "no address range is free in all processes of the tree");
  }

  ImageStore& store_;
  const RestoreOptions& options_;
  RestorePlan plan_;
  std::optional<Extension> extension_;  // what dumps of other programs do not have
};

}  // namespace

std::vector<Mapping> taken_ranges(const RestorePlan& plan) {
  std::vector<Mapping> taken;
  const auto add = [&](uint64_t start, uint64_t end) -> Mapping& {
    Mapping& m = taken.emplace_back();
    m.start = start;
    m.end = end;
    return m;
  };
  for (const auto& p : plan.processes)
    for (const Vma& v : p->vmas.areas)
      if (Mapping& m = add(v.start, v.end); (v.flags & MAP_GROWSDOWN) != 0) m.vm_flags = vm_flag_bit(VmFlag::gd);
  if (plan.area_address != 0)
    add(plan.area_address,
        plan.area_address + BatchArea::bytes_for(plan.area_slots, kLeaderSlotBytes, kThreadSlotBytes));
  std::sort(taken.begin(), taken.end(), [](const Mapping& a, const Mapping& b) { return a.start < b.start; });
  return taken;
}

RestorePlan read_plan(ImageStore& store, const RestoreOptions& options) {
  return PlanReader(store, options).read();
}

}  // namespace stasis
