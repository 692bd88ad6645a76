#include "checkpoint/dump.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <tuple>
#include <vector>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/nanoseconds.h"
#include "base/page_size.h"
#include "base/stage.h"
#include "base/uuid.h"
#include "base/workers.h"
#include "checkpoint/frozen_process.h"
#include "checkpoint/losses.h"
#include "checkpoint/process_images.h"
#include "checkpoint/sharing.h"
#include "checkpoint/statistics.h"
#include "checkpoint/task_clocks.h"
#include "checkpoint/tree_memory.h"
#include "image/pagemap.h"
#include "image/store.h"
#include "kernel/process.h"
#include "memory/page_dump.h"
#include "memory/page_scan.h"
#include "memory/shmem.h"
#include "objects/cpu_info.h"
#include "objects/files/file_table.h"
#include "objects/files/io_uring.h"
#include "objects/ipc/sysv_shm.h"
#include "objects/task/security_label.h"
#include "objects/task/task_state.h"
#include "objects/tree_plan.h"
#include "proto/inventory.pb.h"
#include "proto/pstree.pb.h"
#include "proto/timens.pb.h"

namespace stasis {

namespace {

// What one thread has done before another has started and been scheduled.
constexpr size_t kFewProcesses = 2, kFewThreads = 16;
constexpr uint64_t kFewBytes = 4 << 20;

uint32_t microseconds(Clock::duration d) {
  return static_cast<uint32_t>(std::chrono::duration_cast<std::chrono::microseconds>(d).count());
}

class Checkpoint {
 public:
  explicit Checkpoint(const DumpOptions& options)
      : options_(options),
        store_(ImageStore::in_directory(Fd(fcntl(options.images_dir.get(), F_DUPFD_CLOEXEC, 3)),
                                        options.images_dir_shown)),
        files_(options),
        memory_(options, store_) {}

  DumpResult run() {
    stage("freeze", [&] { freeze(); });
    stage("look", [&] { look(); });
    memory_.start(processes_, seized_.size() > 1, workers_);
    stage("borrow", [&] { borrow(); });
    stage("files", [&] { collect_files(); });
    if (memory_.forks()) stage("fork", [&] { memory_.fork(workers_, waiter_); });
    stage("memory", [&] { finish_copies(); });
    if (runs_on()) {
      // The tasks need not wait for the images: whatever fails from here on leaves them running as before.
      stage("give back", [&] { give_back(); });
      stage("release", [&] { release(); });
      if (memory_.forks()) stage("drain", [&] { drain(); });
      stage("images", [&] { write_images(); });
      stage("commit", [&] { commit(); });
    } else {
      stage("images", [&] { write_images(); });
      if (options_.final_state == DumpOptions::FinalState::stopped) stage("give back", [&] { give_back(); });
      stage("commit", [&] { commit(); });
      stage("release", [&] { release(); });
    }
    losses_.tell();
    write_statistics(options_, memory_.stats(), statistics_);
    return {statistics_};
  }

  std::string left_by_failure() const { return store_.left_by_failure(); }

 private:
  bool runs_on() const { return options_.final_state == DumpOptions::FinalState::running; }

  void freeze() {
    prepare_task_objects(parse_status(ProcDir(options_.pid).read("status")));
    AreaPolicies::prepare();
    own_offsets_ = parse_timens_offsets(ProcDir(getpid()).read("timens_offsets"));
    const auto begin = Clock::now();
    seized_ = seize_tree(options_.pid, waiter_, {.deadline = begin + std::chrono::seconds(options_.timeout_s)},
                         [&](std::span<const pid_t> pids) {
                           losses_.look_at_groups(pids);
                           const bool many = pids.size() > kFewProcesses;
                           const Amount amount = many && !runs_on() ? Amount{} : amount_of(pids);
                           if (runs_on() || many || amount.threads > kFewThreads || amount.private_bytes > kFewBytes)
                             workers_.employ();
                           warm_up(pids, amount.private_bytes);
                           memory_.prepare(pids, amount.private_bytes);
                           waits_.sample(pids);
                           frozen_since_ = Clock::now();
                         });
    statistics_.freezing_time_us = microseconds(Clock::now() - begin);
  }

  void warm_up(std::span<const pid_t> pids, uint64_t private_bytes) {
    std::vector<std::function<void()>> jobs;
    std::vector<WarmProc> found(pids.size());
    for (size_t i = 0; i < pids.size(); ++i)
      jobs.emplace_back([pid = pids[i], &out = found[i]] { out = warm_proc(pid); });
    workers_.start(std::move(jobs));
    workers_.finish();
    size_t mappings = 0;
    for (size_t i = 0; i < pids.size(); ++i) {
      mappings += found[i].mappings;
      // Getting ready takes longer than a freeze should, and so may the last requests of a ring.
      if (found[i].has_ring) await_rings(pids[i], files_.kernel_memory());
    }
    if (mappings >= kManyMappings || private_bytes >= kMuchMemoryBytes) mapping_reader_ = MappingReader::open();
  }

  // What the tasks have, as far as it can be told while they run.
  struct Amount {
    uint64_t private_bytes = 0, threads = 0;
  };
  static Amount amount_of(std::span<const pid_t> pids) {
    Amount amount;
    for (pid_t pid : pids) {
      try {
        ProcDir dir(pid);
        // size, resident, shared ...
        unsigned long size = 0, resident = 0, shared = 0;
        if (std::sscanf(std::string(dir.read("statm")).c_str(), "%lu %lu %lu", &size, &resident, &shared) == 3)
          amount.private_bytes += (resident - std::min(resident, shared)) * page_size_bytes();
        amount.threads += static_cast<uint64_t>(parse_stat(dir.read("stat")).num_threads);
      } catch (const Error&) {
        // It has ended: this is only a guess.
      }
    }
    return amount;
  }

  void look() {
    processes_.reserve(seized_.size());
    std::vector<std::function<void()>> jobs;
    std::erase_if(seized_, [&](SeizedProcess& s) { return s.threads.empty() && !is_zombie(s.pid); });
    for (SeizedProcess& s : seized_) {
      if (s.threads.empty()) continue;
      processes_.push_back(std::make_unique<FrozenProcess>(s, waits_));
      processes_.back()->add_jobs(jobs, seized_.size() <= 2, mapping_reader_.get());
    }
    check_root_lives();
    workers_.start(std::move(jobs));
    for (auto& p : processes_) p->read_registers();
    workers_.finish();
    check_session();
    std::vector<std::pair<pid_t, KernelIds*>> sharers;
    for (auto& p : processes_) {
      p->ids = ids_.of(p->namespaces);
      check_namespaces(*p);
      sharers.emplace_back(p->task(), &p->ids);
    }
    workers_.start(ids_.sharing_jobs(std::move(sharers)));
    for (auto& p : processes_) {
      p->look(options_, filters_, waiter_);
    }
    workers_.finish();
    number_thread_tables(processes_, ids_);
    files_.expect(count_descriptors(processes_));
    check_sharing(processes_);
    check_tree();
    check_interrupted();
  }

  // A process that ended before it was stopped: not waited for, or gone altogether.
  bool is_zombie(pid_t pid) {
    try {
      ProcStat stat = parse_stat(ProcDir(pid).read("stat"));
      if (!stat.zombie()) return false;
      zombies_.emplace(pid, std::move(stat));
      return true;
    } catch (const Error&) {
      if (pid == options_.pid) throw;
      return false;
    }
  }

  void check_namespaces(const FrozenProcess& p) {
    const KernelIds& own = ids_.own();
    for (size_t i = 0; i < kNamespaces; ++i) {
      const auto which = static_cast<Namespace>(i);
      if (which == Namespace::time ? p.ids.of(which) != processes_root_time(p) : p.ids.of(which) != own.of(which))
        throw Error(Reason::UNSUPPORTED_NAMESPACE,
                    fmt::format("it has a {} namespace of its own", namespace_name(which)))
            .object(p.describe())
            .remedy("this version saves tasks that share the namespaces of the host");
    }
  }

  uint32_t processes_root_time(const FrozenProcess& p) const {
    return processes_.empty() ? p.ids.of(Namespace::time) : processes_.front()->ids.of(Namespace::time);
  }

  void check_root_lives() const {
    if (processes_.empty())
      throw Error(Reason::UNSUPPORTED_STATE, "it is a zombie: dead, but not waited for")
          .object(fmt::format("pid {}", options_.pid))
          .remedy("let its parent wait for it");
  }

  void check_session() {
    FrozenProcess& root = *processes_.front();
    const ProcStat& stat = root.leader().stat;
    // A session whose leader is gone, as daemons have it, is no business of whoever restores it.
    if (stat.sid == root.pid() || options_.shell_job || (stat.tty_nr == 0 && is_gone(stat.sid))) return;
    throw Error(Reason::NOT_SESSION_LEADER,
                fmt::format("it belongs to session {}, which is not part of the dump", stat.sid))
        .object(root.describe())
        .remedy("add --shell-job to take session and terminal from whoever restores it, or start it with setsid");
  }

  // Its id is free, or will be when its parent has waited for it.
  static bool is_gone(pid_t pid) {
    if (kill(pid, 0) != 0) return errno == ESRCH;
    try {
      return parse_stat(ProcDir(pid).read("stat")).zombie();
    } catch (const Error&) {
      return kill(pid, 0) != 0 && errno == ESRCH;
    }
  }

  // Whether the tree can be made again.
  void check_tree() const {
    std::map<pid_t, int> index;
    std::vector<TreeProcess> tree;
    auto living = processes_.begin();
    for (const SeizedProcess& s : seized_) {
      const auto zombie = zombies_.find(s.pid);
      const bool dead = zombie != zombies_.end();
      const ProcStat& stat = dead ? zombie->second : (*living)->leader().stat;
      if (dead && (stat.exit_signal == SIGSTOP || stat.exit_signal == SIGKILL))
        throw Error(
            Reason::UNSUPPORTED_STATE,
            fmt::format("it is dead, and has told its parent so by signal {}, which would act again", stat.exit_signal))
            .object(fmt::format("pid {} ({})", s.pid, stat.comm))
            .remedy("let its parent wait for it");
      index[s.pid] = static_cast<int>(tree.size());
      const int exit_signal = dead ? stat.exit_signal : (*living)->states.get<TaskState>().exit_signal;
      tree.push_back({s.pid, stat.pgid, stat.sid, s.parent == 0 ? kOutside : index.at(s.parent),
                      dead ? 0 : (*living)->ids.files, dead ? 0 : (*living)->ids.fs, exit_signal});
      if (!dead) ++living;
    }
    if (is_plain_tree(tree)) return;
    const TreeProcess& root = tree.front();
    TreeSurroundings outside;
    if (!index.contains(root.sid) && options_.shell_job)
      outside = {root.sid, index.contains(root.pgid) ? 0 : root.pgid};
    const TreePlan plan = plan_tree(tree, outside, Reason::UNSUPPORTED_STATE);
    // Only the id of one that is gone can be taken by a stand-in.
    for (const TreeNode& n : plan.nodes)
      if (n.temporary() && n.pid != 0 && !is_gone(n.pid))
        throw Error(
            Reason::UNSUPPORTED_STATE,
            fmt::format("a process of the tree belongs to session or group {}, which is led from outside", n.pid))
            .object(processes_.front()->describe())
            .remedy("dump a tree that contains the leader, or let the process leave that session or group");
  }

  void read_clocks() {
    const ClockReading now = stasis::read_clocks();
    files_.clocks_read_at_ns = now.monotonic_ns;
    clocks_ = read_task_clocks(processes_.front()->proc, own_offsets_, now);
  }

  void borrow() {
    for (auto& p : processes_) p->start_borrow();
    for (auto& p : processes_) p->finish_borrow(waiter_);
    read_clocks();
    for (auto& p : processes_) p->set_clock(clocks_.monotonic());
    for (auto& p : processes_) p->start_leader_batch(options_);
    if (!workers_.has_threads()) workers_.run_waiting();
    for (auto& p : processes_) p->finish_leader_batch(options_, waiter_);
    for (auto& p : processes_) p->run_thread_batches(options_, waiter_);
    for (auto& p : processes_) {
      losses_.collect(p->states, p->describe());
      for (FrozenThread& t : p->threads) losses_.collect(t.states, p->describe());
    }
    check_interrupted();
  }

  void collect_files() {
    for (auto& p : processes_)
      if (const ProcStat& stat = p->leader().stat; stat.sid == p->pid())
        files_.tree_sessions.push_back({p->pid(), stat.tty_nr, stat.tty_pgrp});
    for (const SeizedProcess& s : seized_) files_.tree_pids.insert(s.pid);
    for (auto& p : processes_)
      for (const Vma& v : p->vmas)
        if (v.is_segment()) segments_.add(p->proc, p->mappings[v.mapping], v, p->describe(), files_.memory_objects);
    std::set<uint32_t> tables;
    for (auto& p : processes_) {
      if (tables.insert(p->ids.files).second)
        files_.add_process(p->ids.files, p->task(), p->pidfd.get(), p->leader().stat.comm, p->descriptors);
      p->exe_file_id = path_file(*p, p->proc, "exe", O_RDONLY, "the executable");
      p->cwd_file_id = path_file(*p, p->proc, "cwd", O_RDONLY | O_DIRECTORY, "the working directory");
      p->root_file_id = path_file(*p, p->proc, "root", O_RDONLY | O_DIRECTORY, "the root directory");
      for (FrozenThread& t : p->threads)
        if (t.own_tables) collect_files_of_thread(*p, t, tables);
      for (Vma& v : p->vmas)
        if (v.is_file()) v.shmid = mapped_file(*p, p->mappings[v.mapping], v);
    }
    for (const auto& p : processes_)
      if (p->has_ring_workers && !files_.has_task_made())
        throw Error(Reason::UNSUPPORTED_STATE, "it has worker threads of io_uring, and no descriptor of a ring")
            .object(p->describe())
            .remedy("let the program keep the descriptors of its rings, or close the rings before the dump");
    losses_.collect(files_.conclude(store_));
    check_interrupted();
  }

  void collect_files_of_thread(FrozenProcess& p, FrozenThread& t, std::set<uint32_t>& tables) {
    OwnTables& own = *t.own_tables;
    if (tables.insert(own.ids.files).second)
      files_.add_process(own.ids.files, t.tracee->tid(), own.pidfd.get(), t.stat.comm, own.descriptors);
    const ProcDir dir(t.tracee->tid());
    own.cwd_file_id = path_file(p, dir, "cwd", O_RDONLY | O_DIRECTORY, "the working directory of a thread");
    own.root_file_id = path_file(p, dir, "root", O_RDONLY | O_DIRECTORY, "the root directory of a thread");
  }

  // The file behind a link of /proc/PID. Most processes of a tree have the same few.
  uint32_t path_file(FrozenProcess& p, const ProcDir& dir, const char* link, uint32_t flags, const char* what) {
    PathFile file{.flags = flags};
    // The tasks are frozen and share root and mounts: the same path is the same file, unless that was deleted.
    file.link = dir.readlink(link).value_or(std::string());
    // A program that was started from a memfd: its name says nothing.
    if (file.link.starts_with("/memfd:") && file.link.ends_with(" (deleted)"))
      return nameless_file(p, dir.open(link, O_RDONLY), flags);
    const auto [at, fresh] = known_paths_.try_emplace({flags, file.link}, 0u);
    if (!fresh && !file.link.ends_with(" (deleted)")) return at->second;
    if (fstatat(dir.fd(), link, &file.st, 0) != 0)
      throw Error(Reason::FILE_UNREACHABLE, fmt::format("{} cannot be looked at", what))
          .object(p.describe())
          .error_number(errno);
    const Fd fd = dir.open(link, O_PATH);
    file.fd = fd.get();
    file.who = fmt::format("{} ({}) of {}", what, file.link, p.describe());
    return at->second = files_.add_path_file(file);
  }

  uint32_t mapped_file(FrozenProcess& p, const Mapping& m, Vma& v) {
    if (m.name.starts_with("anon_inode:")) return files_.mapping_of_task_made(m, p.describe());
    // Made after a seal against future writes, which a restore adds when all is mapped: must not become writable then.
    if (v.has(vma_status::memfd) && v.fdflags == uint32_t{O_RDWR} && !m.has(VmFlag::mw) &&
        (fcntl(open_mapped(p.proc, m.start, m.end, p.describe()).get(), F_GET_SEALS) & F_SEAL_FUTURE_WRITE) != 0)
      v.fdflags = O_RDONLY;
    const uint32_t flags = v.fdflags.value_or(O_RDONLY);
    const auto [at, fresh] = known_mappings_.try_emplace({m.dev_major, m.dev_minor, m.inode, flags, m.name}, 0u);
    if (!fresh) return at->second;
    if (v.has(vma_status::memfd))
      return at->second = nameless_file(p, open_mapped(p.proc, m.start, m.end, p.describe()), flags);
    const std::string link = fmt::format("map_files/{:x}-{:x}", m.start, m.end);
    return at->second = path_file(p, p.proc, link.c_str(), flags, "the mapped file");
  }

  uint32_t nameless_file(FrozenProcess& p, const Fd& fd, uint32_t flags) {
    const std::string owner = p.describe();
    FileView view;
    view.fd = fd.get();
    view.flags = flags;
    view.pid = p.task();
    view.owner = owner;
    return files_.add_mapped_file(view);
  }

  void finish_copies() {
    const auto begin = Clock::now();
    memory_.finish(files_.memory_objects, workers_);
    statistics_.memdump_time_us = microseconds(Clock::now() - begin);
    check_interrupted();
  }

  void drain() {
    const auto begin = Clock::now();
    memory_.drain();
    statistics_.memwrite_time_us += microseconds(Clock::now() - begin);
  }

  void write_images() {
    const auto begin = Clock::now();
    memory_.store();
    statistics_.memwrite_time_us += microseconds(Clock::now() - begin);
    pb::extension_head head;
    losses_.encode(head);
    files_.encode_extension(head);
    segments_.encode_extension(head);
    ExtensionWriter extension(store_, std::move(head));
    for (const auto& p : processes_) {
      write_process_images(*p, store_);
      write_extension(*p, extension);
    }
    files_.encode(store_);
    segments_.write_images(store_, ids_.own().of(Namespace::ipc));

    write_tree(extension);
    if (options_.cpu.image) store_.write_single(ImageKind::CPUINFO, 0, describe_this_cpu());
    pb::seccomp_entry filters;
    filters_.encode(filters);
    store_.write_single(ImageKind::SECCOMP, 0, filters);
    const uint32_t time_ns = processes_.front()->ids.of(Namespace::time);
    store_.write_single(ImageKind::TIMENS, time_ns == ids_.own().of(Namespace::time) ? 0 : time_ns, clocks_);
  }

  void write_tree(ExtensionWriter& extension) {
    ImageWriter& tree = store_.writer(ImageKind::PSTREE);
    auto living = processes_.begin();
    for (const SeizedProcess& seized : seized_) {
      const auto zombie = zombies_.find(seized.pid);
      const ProcStat& stat = zombie != zombies_.end() ? zombie->second : (*living)->leader().stat;
      pb::pstree_entry e;
      e.set_pid(static_cast<uint32_t>(seized.pid));
      e.set_ppid(static_cast<uint32_t>(seized.parent));
      e.set_pgid(static_cast<uint32_t>(stat.pgid));
      e.set_sid(static_cast<uint32_t>(stat.sid));
      if (zombie != zombies_.end()) {
        e.add_threads(static_cast<uint32_t>(seized.pid));
        write_zombie_images(stat, store_, extension);
      } else {
        if ((*living)->leader_has_ended()) e.add_threads(static_cast<uint32_t>(seized.pid));
        for (const FrozenThread& t : (*living)->threads) e.add_threads(static_cast<uint32_t>(t.stat.pid));
        ++living;
      }
      tree.write(e);
    }
  }

  void commit() {
    check_interrupted();
    pb::inventory_entry inventory;
    inventory.set_img_version(kImageVersion);
    inventory.set_fdinfo_per_id(true);
    encode(ids_.own(), *inventory.mutable_root_ids());
    inventory.set_ns_per_id(true);
    inventory.set_root_cg_set(1);
    inventory.set_lsmtype(security_module());
    inventory.mutable_plugins_entry();
    inventory.set_dump_criu_run_id(random_uuid());
    store_.commit(inventory);
    files_.remaps.keep_links();
    ignore_interrupts();
  }

  void give_back() {
    for (auto& p : processes_) p->start_give_back();
    for (auto& p : processes_) p->finish_give_back(waiter_);
  }

  void release() {
    statistics_.frozen_time_us = microseconds(Clock::now() - frozen_since_);
    switch (options_.final_state) {
      case DumpOptions::FinalState::running:
        break;
      case DumpOptions::FinalState::stopped:
        for (SeizedProcess& s : seized_) kill(s.pid, SIGSTOP);
        break;
      case DumpOptions::FinalState::kill:
        kill_all();
        return;
    }
    for (SeizedProcess& s : seized_)
      for (Tracee& t : s.threads) t.detach();
    log::flush();
  }

  void kill_all() {
    // Parents first: none of them sees a child die.
    for (auto& p : processes_) p->abandon();
    for (SeizedProcess& s : seized_) kill(s.pid, SIGKILL);
    for (SeizedProcess& s : seized_)
      for (size_t i = s.threads.size(); i-- > 0;) {
        // The leader's end is told after that of the other threads.
        const pid_t tid = s.threads[i].tid();
        s.threads[i].forget();
        int status;
        while (waitpid(tid, &status, __WALL) == tid && WIFSTOPPED(status)) {
        }
      }
  }

  const DumpOptions& options_;
  Losses losses_{options_};
  DumpStatistics statistics_;
  ImageStore store_;
  KernelIdTable ids_;
  FileTable files_;
  SysvShmTable segments_;
  SeccompFilters filters_;
  std::unique_ptr<MappingReader> mapping_reader_;
  std::map<std::pair<uint32_t, std::string>, uint32_t> known_paths_;
  std::map<std::tuple<uint32_t, uint32_t, uint64_t, uint32_t, std::string>, uint32_t> known_mappings_;
  WaitBegins waits_;
  StopWaiter waiter_;
  TreeMemory memory_;  // its forks are ended when the processes run again
  // Declared last, destroyed first: the processes use the threads below, and both are put back before anything else.
  std::vector<SeizedProcess> seized_;
  std::vector<std::unique_ptr<FrozenProcess>> processes_;  // the living ones
  Workers workers_{0};                                     // joined before the processes go that its jobs look at
  std::map<pid_t, ProcStat> zombies_;
  Clock::time_point frozen_since_;
  TimeNsOffsets own_offsets_;
  pb::timens_entry clocks_;
};

}  // namespace

DumpResult dump(const DumpOptions& options) {
  std::optional<Checkpoint> checkpoint;
  try {
    return checkpoint.emplace(options).run();
  } catch (Error& e) {
    e.while_doing(fmt::format("dump of pid {}", options.pid));
    if (checkpoint) e.leaves(checkpoint->left_by_failure());
    throw;
  }
}

}  // namespace stasis
