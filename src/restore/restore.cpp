#include "restore/restore.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/pid_file.h"
#include "base/scope_guard.h"
#include "base/stage.h"
#include "proto/stats.pb.h"
#include "restore/clocks.h"
#include "restore/foreground.h"
#include "restore/pid_namespace.h"
#include "restore/plan.h"
#include "restore/settle.h"
#include "restore/task_files.h"
#include "restore/tree.h"

namespace stasis {

namespace {

uint32_t microseconds_since(Clock::time_point start) {
  return static_cast<uint32_t>(std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - start).count());
}

void write_statistics(const RestoreOptions& options, const RestoreStatistics& s) {
  pb::stats_entry entry;
  pb::restore_stats_entry& r = *entry.mutable_restore();
  r.set_pages_compared(s.pages_compared);
  r.set_pages_skipped_cow(s.pages_skipped_cow);
  r.set_forking_time(s.forking_time_us);
  r.set_restore_time(s.restore_time_us);
  if (s.pages_restored) r.set_pages_restored(*s.pages_restored);
  write_work_file(options.work_dir.get(), ".", ImageKind::STATS_RESTORE, entry);
}

class Restore {
 public:
  explicit Restore(const RestoreOptions& options)
      : options_(options),
        store_(ImageStore::in_directory(Fd(fcntl(options.images_dir.get(), F_DUPFD_CLOEXEC, 3)),
                                        options.images_dir_shown)) {}

  // Everything up to the moment when the tree runs.
  void run() {
    const auto begin = Clock::now();
    stage("plan", [&] { plan(); });
    stage("tree", [&] { tree(); });
    stage("objects", [&] { objects(); });
    stage("settle", [&] { settle_all(); });
    stage("commit", [&] { commit(); });
    stage("release", [&] { release(); });
    statistics_.restore_time_us = microseconds_since(begin);
    log_info("Restored pid {}", root_);
  }

  const RestoreStatistics& statistics() const { return statistics_; }
  Foreground& foreground() { return *foreground_; }

 private:
  void plan() {
    log_info("Reading the images in {}", options_.images_dir_shown);
    plan_ = read_plan(store_, options_);
    std::vector<uint32_t> tables;
    std::vector<RestoredFiles::TableOwner> owners;
    for (const auto& p : plan_.processes)
      if (!p->zombie) living_.push_back(p.get());
    for (const PlannedProcess* p : living_) {
      tables.push_back(p->ids.files_id());
      owners.push_back({p->pid, p->ids.files_id()});
      for (const PlannedThread& t : p->threads) {
        if (t.tables) tables.push_back(t.tables->files);
        if (t.tid != p->pid) owners.push_back({t.tid, t.tables ? t.tables->files : p->ids.files_id()});
      }
    }
    std::ranges::sort(tables);
    tables.erase(std::unique(tables.begin(), tables.end()), tables.end());
    files_.emplace(store_, options_, tables, plan_.extension ? &*plan_.extension : nullptr);
    files_->plan();
    for (const auto& p : plan_.processes)
      for (Vma& v : p->vmas.areas) v.mapped_later = v.is_file() && files_->made_by_task(static_cast<uint32_t>(v.shmid));
    files_->plan_locks(owners);
    segments_.emplace(plan_.segments);
    verify_unread_images(store_);
    root_ = plan_.root().pid;
  }

  void tree() {
    const auto begin = Clock::now();
    segments_->create(store_);
    files_->create_deleted(store_);
    tree_.emplace(plan_, options_, store_, *files_, waiter_);
    {
      std::optional<ClocksOfChildren> clocks;
      if (plan_.clocks && options_.time_namespace) {
        clocks.emplace(*plan_.clocks);
        clocks_ = clocks->clocks();
        files_->set_clocks_began(clocks_->since_ns);
      }
      tree_->build(options_.sibling);
    }
    check_interrupted();
    tree_->settle_terminals();
    tree_->end_zombies();
    tree_->stop_processes();
    tree_->forget_child_signals();
    statistics_.forking_time_us = microseconds_since(begin);
    log_info("Made {} processes, {} pages filled, {} shared", plan_.processes.size(), tree_->pages_filled(),
             tree_->pages_shared());
  }

  void objects() {
    files_->create();
    check_interrupted();
    // Tables are filled while there is nothing in them but the channels.
    tree_->clone_threads(PuppetTree::Tables::own);
    hand_over_files(*tree_, living_, *files_, waiter_);
  }

  void settle_all() {
    tree_->clone_threads(PuppetTree::Tables::of_leader);
    make_files_in_tasks(*tree_, living_, *files_, waiter_);
    files_->finish();
    settle(*tree_, living_, *files_, options_, waiter_);
    check_interrupted();
  }

  // From the pid file on only what cannot be refused any more.
  void commit() {
    statistics_.pages_compared = tree_->pages_shared();
    statistics_.pages_skipped_cow = tree_->pages_shared();
    statistics_.pages_restored = tree_->pages_filled();
    if (!options_.pidfile.empty()) {
      const pid_t shown = options_.new_pid_namespace ? pid_outside(root_) : root_;
      write_pid_file(options_.work_dir.get(), options_.pidfile, shown);
    }
    ScopeGuard remove_pidfile([&] {
      if (!options_.pidfile.empty()) unlinkat(options_.work_dir.get(), options_.pidfile.c_str(), 0);
    });
    const bool stop_all = options_.final_state == RestoreOptions::FinalState::stopped;
    make_ready(*tree_, living_, options_, clocks_, waiter_);
    for (const PlannedProcess* p : living_)
      if (stop_all && p->task.stop_signal == 0) tree_->puppet(*p).set_stop_signal(SIGSTOP);
    remove_pidfile.dismiss();
  }

  void release() {
    files_->remove_links();
    // Files held here would hide that the tasks close theirs.
    files_.reset();
    segments_->release();
    prctl(PR_SET_CHILD_SUBREAPER, 0);
    const bool own_group = plan_.root().pgid == root_ || plan_.root().sid == root_;
    foreground_.emplace(options_, root_, own_group ? root_ : 0);
    foreground_->hand_terminal_over();
    release_all(tree_->puppets());
    tree_->released();
    // From here on the tree outlives whoever waits for it.
    if (options_.new_pid_namespace) prctl(PR_SET_PDEATHSIG, 0);
  }

  const RestoreOptions& options_;
  RestoreStatistics statistics_;
  ImageStore store_;
  RestorePlan plan_;
  std::vector<const PlannedProcess*> living_;
  StopWaiter waiter_;
  std::optional<RestoredFiles> files_;
  std::optional<RestoredSegments> segments_;
  std::optional<PuppetTree> tree_;
  std::optional<Foreground> foreground_;
  std::optional<RestoredClocks> clocks_;
  pid_t root_ = 0;
};

}  // namespace

int restore(const RestoreOptions& options) {
  Restore run(options);
  run.run();
  if (options.statistics != nullptr) *options.statistics = run.statistics();
  // The tree runs: nothing can fail the restore any more.
  try {
    write_statistics(options, run.statistics());
  } catch (const Error& e) {
    log_warning("{}", e.what());
  }
  log::flush();
  return options.detached ? 0 : run.foreground().wait();
}

}  // namespace stasis
