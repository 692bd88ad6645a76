#include "restore/restore.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <optional>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/pid_file.h"
#include "base/scope_guard.h"
#include "proto/stats.pb.h"
#include "restore/clocks.h"
#include "restore/foreground.h"
#include "restore/plan.h"
#include "restore/settle.h"
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

}  // namespace

int restore(const RestoreOptions& options) {
  const auto started = Clock::now();
  RestoreStatistics statistics;
  pid_t root = 0;
  std::optional<Foreground> foreground;
  {
    log_info("Reading the images in {}", options.images_dir_shown);
    ImageStore store =
        ImageStore::open(Fd(fcntl(options.images_dir.get(), F_DUPFD_CLOEXEC, 3)), options.images_dir_shown);
    RestorePlan plan = read_plan(store, options);
    std::vector<uint32_t> tables;
    for (const auto& p : plan.processes)
      if (!p->zombie) tables.push_back(p->ids.files_id());
    RestoredFiles files(store, options, tables);
    files.plan();
    verify_unread_images(store);
    StopWaiter waiter;
    PuppetTree tree(plan, store, files, waiter);
    root = plan.root().pid;

    const auto forking = Clock::now();
    {
      std::optional<ClocksOfChildren> clocks;
      if (plan.clocks && options.time_namespace) clocks.emplace(*plan.clocks);
      tree.build();
    }
    check_interrupted();
    tree.set_process_groups();
    tree.end_zombies();
    statistics.forking_time_us = microseconds_since(forking);
    log_info("Made {} processes, {} pages filled, {} shared", plan.processes.size(), tree.pages_filled(),
             tree.pages_shared());

    files.create();
    check_interrupted();
    for (const auto& p : plan.processes)
      if (!p->zombie) hand_over_files(tree, *p, files, waiter);
    files.finish();
    tree.clone_threads();
    for (const auto& p : plan.processes)
      if (!p->zombie) settle(tree, *p, files, options, waiter);
    log_info("Settled {} threads", plan.threads);

    statistics.pages_compared = tree.pages_shared();
    statistics.pages_skipped_cow = tree.pages_shared();
    statistics.pages_restored = tree.pages_filled();
    if (!options.pidfile.empty()) write_pid_file(options.work_dir.get(), options.pidfile, root);
    ScopeGuard remove_pidfile([&] {
      if (!options.pidfile.empty()) unlinkat(options.work_dir.get(), options.pidfile.c_str(), 0);
    });
    check_interrupted();

    // From here on nothing may fail.
    const bool stop_all = options.final_state == RestoreOptions::FinalState::stopped;
    for (const auto& p : plan.processes) {
      if (p->zombie) continue;
      make_ready(tree, *p, options, waiter);
      tree.puppet(*p).set_stop_signal(stop_all ? SIGSTOP : p->task.stop_signal);
    }
    prctl(PR_SET_CHILD_SUBREAPER, 0);
    const bool own_group = plan.root().pgid == root || plan.root().sid == root;
    foreground.emplace(options, root, own_group ? root : 0);
    foreground->hand_terminal_over();
    release_all(tree.puppets());
    tree.released();
    remove_pidfile.dismiss();
  }
  statistics.restore_time_us = microseconds_since(started);
  log_info("Restored pid {}", root);
  if (options.statistics != nullptr) *options.statistics = statistics;
  try {
    write_statistics(options, statistics);
  } catch (const Error& e) {
    log_warning("{}", e.what());
  }
  log::flush();
  return options.detached ? 0 : foreground->wait();
}

}  // namespace stasis
