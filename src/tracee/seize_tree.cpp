#include "tracee/seize_tree.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <deque>
#include <map>
#include <optional>
#include <set>

#include "base/error.h"
#include "base/log.h"
#include "kernel/proc.h"
#include "kernel/process.h"

namespace stasis {

namespace {

// Forks and clones since boot ("processes" of /proc/stat). Equal values before a scan and after the last stop prove
// that no task can have been missed. 0 if it is not told.
uint64_t forks_since_boot() {
  const std::string text = read_system_file("stat");
  const size_t at = text.find("\nprocesses ");
  if (at == std::string::npos) return 0;
  return std::strtoull(text.c_str() + at + 11, nullptr, 10);
}

// Reading /proc/stat costs as much as looking at a dozen threads.
constexpr size_t kWorthCountingForks = 32;
// A thread that has not stopped by then may be waiting for a vfork child.
constexpr std::chrono::milliseconds kVforkSuspicion{20};
// Everything else is frozen while such a child is waited for.
constexpr std::chrono::milliseconds kVforkPatience{500};
constexpr std::chrono::milliseconds kVforkPoll{1};

class TreeSeizer {
 public:
  TreeSeizer(pid_t root, StopWaiter& waiter, const SeizeOptions& options)
      : root_(root), waiter_(waiter), options_(options) {}

  std::vector<SeizedProcess> run(const std::function<void(std::span<const pid_t>)>& before_stop) {
    check_root();
    // Seize while everything still runs: this costs the tasks nothing.
    uint64_t forks = 0;
    for (int round = 0; round < 4; ++round) {
      if (known_.size() >= kWorthCountingForks) forks = forks_since_boot();
      if (!scan()) break;
    }
    if (forks == 0 && known_.size() >= kWorthCountingForks) {
      forks = forks_since_boot();
      scan();
    }
    if (before_stop) before_stop(order_);
    for (;;) {
      stop_new();
      if (forks != 0 && forks_since_boot() == forks) break;
      forks = 0;
      if (!scan()) break;
    }
    log_info("Seized {} threads of {} processes", known_.size(), order_.size());
    return take();
  }

 private:
  struct Node {
    pid_t parent = 0;
    bool zombie = false;
    std::deque<Tracee> threads;  // references stay valid while a scan adds more
    std::vector<pid_t> children;
    std::optional<ProcDir> dir;
  };

  void check_root() {
    for (pid_t p = getpid(); p > 0;) {
      if (p == root_)
        throw Error(Reason::OWN_ANCESTOR, "the tree to dump contains this program")
            .object(fmt::format("pid {}", root_))
            .remedy("name a process that is not an ancestor of the caller, or run the command from outside the tree");
      p = parse_stat(ProcDir(p).read("stat")).ppid;
    }
  }

  // Seizes what is new. True if there was something.
  bool scan() {
    const size_t before = known_.size() + nodes_.size();
    order_.clear();
    visit(root_, 0);
    return known_.size() + nodes_.size() != before;
  }

  void visit(pid_t pid, pid_t parent) {
    if (Clock::now() > options_.deadline) throw_timeout(fmt::format("pid {}", pid));
    if (pid == getpid())
      throw Error(Reason::OWN_ANCESTOR, "the tree to dump contains this program").object(fmt::format("pid {}", pid));
    Node& node = nodes_[pid];
    node.parent = parent;
    try {
      if (!node.dir) node.dir.emplace(pid);
      seize_threads(pid, node);
    } catch (const Error& e) {
      if (pid == root_ || (e.reason() != Reason::NO_SUCH_TASK && e.reason() != Reason::TASK_VANISHED)) throw;
      nodes_.erase(pid);
      return;
    }
    order_.push_back(pid);
    const std::vector<pid_t> children = node.children;
    for (pid_t child : children) visit(child, pid);
  }

  void seize_threads(pid_t pid, Node& node) {
    node.children.clear();
    for (pid_t tid : node.dir->threads()) {
      if (!known_.contains(tid)) seize_thread(pid, tid, node);
      const auto text = node.dir->try_read(fmt::format("task/{}/children", tid).c_str());
      if (!text) continue;
      for (pid_t child : parse_children(*text)) node.children.push_back(child);
    }
    std::sort(node.children.begin(), node.children.end());
  }

  void seize_thread(pid_t pid, pid_t tid, Node& node) {
    try {
      Tracee t = Tracee::seize(pid, tid, options_.ptrace_options);
      known_.insert(tid);
      unstopped_.push_back({pid, tid});
      node.threads.push_back(std::move(t));
    } catch (const Error& e) {
      if (e.reason() == Reason::ALREADY_TRACED || e.reason() == Reason::KERNEL_THREAD) throw;
      const auto text = node.dir->try_read(fmt::format("task/{}/stat", tid).c_str());
      if (!text) return;  // the thread ended meanwhile
      if (!parse_stat(*text).zombie()) throw;
      if (tid == pid) node.zombie = true;
    }
  }

  Tracee* find(pid_t pid, pid_t tid) {
    const auto node = nodes_.find(pid);
    if (node == nodes_.end()) return nullptr;
    for (Tracee& t : node->second.threads)
      if (t.tid() == tid) return &t;
    return nullptr;
  }

  void drop(pid_t pid, pid_t tid) {
    auto& threads = nodes_[pid].threads;
    known_.erase(tid);
    // tid() is 0 once the wait has seen the end of the thread
    std::erase_if(threads, [&](Tracee& t) {
      if (t.tid() != 0 && t.tid() != tid) return false;
      t.forget();
      return true;
    });
  }

  void stop_new() {
    std::vector<std::pair<pid_t, pid_t>> batch;
    batch.swap(unstopped_);
    for (const auto& [pid, tid] : batch) {
      Tracee* t = find(pid, tid);
      if (t == nullptr || t->stopped()) continue;
      try {
        t->interrupt();
      } catch (const Error&) {
        // It is dying; the wait below tells.
      }
    }
    for (const auto& [pid, tid] : batch) collect(pid, tid);
  }

  void collect(pid_t pid, pid_t tid) {
    Tracee* t = find(pid, tid);
    if (t == nullptr) return;
    try {
      if (t->await_stop(waiter_, std::min(options_.deadline, Clock::now() + kVforkSuspicion))) return;
      const std::vector<Tracee*> held = vfork_children(pid);
      if (held.empty()) {
        if (leader_has_ended(pid, tid)) return;
        if (t->await_stop(waiter_, options_.deadline)) return;
        const ProcStat stat = parse_stat(ProcDir::of_thread(pid, tid).read("stat"));
        throw_timeout(fmt::format("task {} ({}, state {})", tid, stat.comm, stat.state));
      }
      wait_for_vfork(*t, held);
    } catch (const Error& e) {
      if (e.reason() != Reason::TASK_VANISHED) throw;
      drop(pid, tid);
      if (pid == root_ && tid == pid) throw;
    }
  }

  // The end of a leader is told when all other threads have ended, too.
  bool leader_has_ended(pid_t pid, pid_t tid) {
    Node& node = nodes_[pid];
    if (tid != pid || node.threads.size() < 2 || !parse_stat(ProcDir::of_thread(pid, tid).read("stat")).zombie())
      return false;
    drop(pid, tid);
    known_.insert(tid);  // it is attached to this program for as long as that runs
    return node.zombie = true;
  }

  // A vfork parent sleeps uninterruptibly until its child, which runs in the parent's memory, calls exec or ends.
  std::vector<Tracee*> vfork_children(pid_t pid) {
    std::vector<Tracee*> held;
    scan();
    for (pid_t child : nodes_[pid].children)
      if (kcmp(pid, child, uapi::kcmp_vm) == 0)
        for (Tracee& t : nodes_[child].threads) held.push_back(&t);
    return held;
  }

  // Lets the children run on until the parent stops, then stops them again.
  void wait_for_vfork(Tracee& parent, std::vector<Tracee*> children) {
    const auto deadline = std::min(options_.deadline, Clock::now() + kVforkPatience);
    while (!parent.await_stop(waiter_, Clock::now() + kVforkPoll)) {
      if (Clock::now() > deadline)
        throw Error(Reason::VFORK_PENDING, "it waits for its vfork child, which has neither called exec nor ended")
            .object(parent.describe())
            .remedy("try again when the child has started its program");
      // Whether they were asked to stop before depends on when they were found: each stop that comes is ended.
      std::erase_if(children, [&](Tracee* c) {
        const auto stopped = await_child(*c, Clock::now());
        if (stopped == true) c->resume();
        return !stopped;
      });
    }
    for (Tracee* c : children) {
      c->interrupt();
      if (await_child(*c, options_.deadline) == false) throw_timeout(c->describe());
    }
  }

  // Whether it stands still at the deadline; nothing if it has ended, then it is forgotten.
  std::optional<bool> await_child(Tracee& child, Clock::time_point deadline) {
    const pid_t pid = child.tgid(), tid = child.tid();
    try {
      return child.await_stop(waiter_, deadline);
    } catch (const Error& e) {
      if (e.reason() != Reason::TASK_VANISHED) throw;
      drop(pid, tid);
      return std::nullopt;
    }
  }

  [[noreturn]] void throw_timeout(const std::string& who) {
    throw Error(Reason::FREEZE_TIMEOUT, "it did not stop in time")
        .object(who)
        .remedy("raise --timeout, or see what the task waits for in /proc/PID/stack");
  }

  std::vector<SeizedProcess> take() {
    std::vector<SeizedProcess> out;
    out.reserve(order_.size());
    for (pid_t pid : order_) {
      Node& node = nodes_[pid];
      std::sort(node.threads.begin(), node.threads.end(), [&](const Tracee& a, const Tracee& b) {
        if ((a.tid() == pid) != (b.tid() == pid)) return a.tid() == pid;
        return a.tid() < b.tid();
      });
      out.push_back({pid,
                     node.parent,
                     node.zombie,
                     {std::make_move_iterator(node.threads.begin()), std::make_move_iterator(node.threads.end())}});
    }
    return out;
  }

  pid_t root_;
  StopWaiter& waiter_;
  SeizeOptions options_;
  std::map<pid_t, Node> nodes_;
  std::set<pid_t> known_;
  std::vector<std::pair<pid_t, pid_t>> unstopped_;
  std::vector<pid_t> order_;
};

}  // namespace

std::vector<SeizedProcess> seize_tree(pid_t root, StopWaiter& waiter, const SeizeOptions& options,
                                      const std::function<void(std::span<const pid_t>)>& before_stop) {
  return TreeSeizer(root, waiter, options).run(before_stop);
}

}  // namespace stasis
