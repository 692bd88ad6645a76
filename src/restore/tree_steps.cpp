// The steps of a tree plan, made by puppets.
#include <fmt/format.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <optional>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/interrupt.h"
#include "kernel/proc.h"
#include "objects/task/personality.h"
#include "restore/tree.h"

namespace stasis {

namespace {

// Room for one more step in a slot.
constexpr size_t kStepBytes = 1024;
// While the next ones are cloned, the memory of these is made.
constexpr size_t kBornAtOnce = 16;

// Ids for temporary processes that have no id to keep: free ones, that are not of the tree, and far from those that the
// kernel gives next.
class FreeIds {
 public:
  explicit FreeIds(const RestorePlan& plan) {
    for (const auto& p : plan.processes) {
      taken_.insert({p->pid, p->pgid, p->sid});
      for (const PlannedThread& t : p->threads) taken_.insert(t.tid);
    }
    most_ = std::atoi(std::string(read_system_file("sys/kernel/pid_max")).c_str()) - 1;
    next_ = std::atoi(std::string(read_system_file("sys/kernel/ns_last_pid")).c_str()) + most_ / 2;
  }

  pid_t take() {
    constexpr pid_t kFirst = 300;  // the kernel wraps around to here
    for (pid_t tries = 0; tries < most_; ++tries) {
      if (++next_ > most_) next_ = kFirst + next_ % most_;
      if (!taken_.contains(next_) && kill(next_, 0) != 0 && errno == ESRCH) return next_;
    }
    throw Error(Reason::PID_TAKEN, "no pid is free for a process that is needed for a moment");
  }

 private:
  std::set<pid_t> taken_;
  pid_t most_ = 0, next_ = 0;
};

}  // namespace

PlannedProcess* PuppetTree::process_of(int node) const {
  const int index = plan_.tree.nodes[static_cast<size_t>(node)].process;
  return index < 0 ? nullptr : plan_.processes[static_cast<size_t>(index)].get();
}

int PuppetTree::exit_signal_of(int node) const {
  // Temporary ones end before the tree runs: nobody is told.
  const PlannedProcess* p = process_of(node);
  return p == nullptr ? 0 : p->task.exit_signal;
}

void PuppetTree::build(bool sibling) {
  std::optional<FreeIds> free_ids;
  for (const TreeNode& n : plan_.tree.nodes) {
    if (n.pid == 0 && !free_ids) free_ids.emplace(plan_);
    pids_.push_back(n.pid != 0 ? n.pid : free_ids->take());
  }
  by_node_.resize(pids_.size());
  temporary_.resize(pids_.size());
  for (const TreeStep& step : plan_.tree.steps) {
    if (step.kind == TreeStep::Kind::end) {
      run_queued();
      fill_mapped();
      end_temporary(step);
    } else if (plan_.tree.nodes[static_cast<size_t>(step.node)].creator == kOutside &&
               step.kind == TreeStep::Kind::create) {
      start_outside(step, sibling);
    } else {
      queue(step);
    }
  }
  run_queued();
  fill_born();
  fill_born();
  for (auto& p : plan_.processes) finish_memory(*p);
  // Advice that would change what a fork does comes after all forks (O-43).
  for (auto& p : plan_.processes)
    if (!p->zombie) start_advice(*p);
  for (auto& [p, batch] : std::exchange(batches_, {})) puppet(*p).finish(*batch, waiter_);
  // A file held open for writing cannot be executed.
  mapped_files_.clear();
  shared_objects_.clear();
}

StubKind PuppetTree::stub_kind(const PlannedProcess& p) {
  return {.compat = p.compat, .personality = p.states.get<Personality>().value};
}

Puppet::Shape PuppetTree::stub_shape() const {
  return {.slots = plan_.area_slots,
          .first_slot_bytes = kLeaderSlotBytes,
          .other_slot_bytes = kThreadSlotBytes,
          .area_address = plan_.area_address};
}

void PuppetTree::start_outside(const TreeStep& step, bool sibling) {
  std::unique_ptr<Puppet> puppet = Puppet::start_root(
      {.pid = pid_of(step.node), .kind = stub_kind(plan_.root()), .channels = &channels_, .sibling = sibling},
      stub_shape(), waiter_);
  filters_.suspend(*puppet);
  channels_.close_puppet_ends();
  by_node_[static_cast<size_t>(step.node)] = puppet.get();
  if (PlannedProcess* p = process_of(step.node)) {
    by_process_[p] = puppet.get();
    puppets_.push_back(std::move(puppet));
    born_.emplace_back(step.node, 0);
  } else {
    temporary_[static_cast<size_t>(step.node)] = std::move(puppet);
  }
}

// Steps of different nodes are made at the same time, unless one needs what another one does.
void PuppetTree::queue(const TreeStep& step) {
  const bool create = step.kind == TreeStep::Kind::create;
  const int actor = create ? plan_.tree.nodes[static_cast<size_t>(step.node)].creator : step.node;
  const bool joins_other = step.kind == TreeStep::Kind::join_group && step.pgid != pid_of(step.node);
  // It must have been born; and a group must have begun, or still have whoever is about to leave it.
  if (by_node_[static_cast<size_t>(actor)] == nullptr || (joins_other && (begins_groups_ || led_.contains(actor))))
    run_queued();
  if (create && must_fill_before(actor)) fill_born();
  come_to_rest(actor);
  if (create) {
    // A child is born with the memory that its creator has then.
    if (PlannedProcess* p = process_of(actor)) finish_memory(*p);
    filters_.install_for_child(actor, step.node, puppet_at(actor), waiter_);
  }
  Work& work = queued_[actor];
  if (work.batch.size() + kStepBytes > kLeaderSlotBytes || work.born.size() == kBornAtOnce) run_queued();
  SyscallBatch& batch = queued_[actor].batch;
  switch (step.kind) {
    case TreeStep::Kind::create:
      Puppet::clone_process(batch, pid_of(step.node), exit_signal_of(step.node), step.tables);
      queued_[actor].born.emplace_back(step.node, step.tables);
      break;
    case TreeStep::Kind::new_session:
      batch.must(SYS_setsid, {});
      take_terminal(actor);
      break;
    case TreeStep::Kind::unshare:
      batch.must(SYS_unshare, {step.tables});
      break;
    case TreeStep::Kind::join_group:
      batch.must(SYS_setpgid, {0, step.pgid});
      if (!joins_other) {
        led_.insert(actor);
        begins_groups_ = true;
      }
      break;
    case TreeStep::Kind::end:
      break;
  }
}

void PuppetTree::run_queued() {
  for (const auto& [node, work] : queued_) come_to_rest(node);
  for (auto& [node, work] : queued_) puppet_at(node).start(work.batch);
  fill_born(true);
  for (auto& [node, work] : queued_) {
    try {
      puppet_at(node).finish(work.batch, waiter_);
    } catch (Error& e) {
      // Only clones ask for something that can exist.
      if (e.reason() != Reason::BATCH_CALL_FAILED || e.error_number() != EEXIST) throw;
      throw Error(Reason::PID_TAKEN, "a process that has nothing to do with the images was given an id of theirs")
          .object(fmt::format("a child of pid {}", pid_of(node)))
          .remedy("restore again, or in a new pid namespace");
    }
  }
  for (auto& [node, work] : queued_)
    for (const auto& [child, tables] : work.born) {
      adopt(puppet_at(node), child);
      const PlannedProcess* p = process_of(child);
      if (p != nullptr && !p->zombie) born_.emplace_back(child, tables);
    }
  queued_.clear();
  begins_groups_ = false;
  check_interrupted();
}

void PuppetTree::adopt(const Puppet& creator, int node) {
  std::unique_ptr<Puppet> puppet = Puppet::adopt_child(creator, pid_of(node), waiter_);
  by_node_[static_cast<size_t>(node)] = puppet.get();
  if (PlannedProcess* p = process_of(node)) {
    by_process_[p] = puppet.get();
    puppets_.push_back(std::move(puppet));
  } else {
    temporary_[static_cast<size_t>(node)] = std::move(puppet);
  }
}

// The calls of those that were started are done.
void PuppetTree::fill_mapped() {
  for (PlannedProcess* p : std::exchange(mapping_, {})) fill_memory(*p);
}

// A creator has its memory before it clones. And received files must not be seen by whoever is cloned with a copy of
// that table.
bool PuppetTree::must_fill_before(int actor) const {
  return std::ranges::any_of(born_,
                             [&](const auto& born) { return born.first == actor || (born.second & CLONE_FILES) != 0; });
}

// Memory of those that were born since the last time. Their own calls run while the next ones are cloned.
// `queued_run`: what is queued runs now, these have to wait.
void PuppetTree::fill_born(bool queued_run) {
  fill_mapped();
  for (const auto& [node, tables] : std::exchange(born_, {})) {
    if (queued_run && queued_.contains(node)) {
      born_.emplace_back(node, tables);
      continue;
    }
    PlannedProcess& p = *plan_.processes[static_cast<size_t>(plan_.tree.nodes[static_cast<size_t>(node)].process)];
    if (p.executes) puppet(p).execute_stub(stub_kind(p), channels_, stub_shape(), waiter_);
    start_memory(p);
    // In a shared table the numbers of received files must be free again before the next one receives.
    if ((tables & CLONE_FILES) != 0)
      fill_memory(p);
    else
      mapping_.push_back(&p);
  }
}

// Its slot is free: the calls that make its areas are done.
void PuppetTree::come_to_rest(int node) {
  PlannedProcess* p = process_of(node);
  if (p != nullptr && std::erase(mapping_, p) != 0) fill_memory(*p);
}

void PuppetTree::end_temporary(const TreeStep& step) {
  const int creator = plan_.tree.nodes[static_cast<size_t>(step.node)].creator;
  const auto call_in = [&](int node, long number, std::initializer_list<SyscallBatch::Arg> args) {
    come_to_rest(node);
    SyscallBatch batch;
    const auto call = batch.must(number, args);
    puppet_at(node).run(batch, waiter_);
    return batch.result(call);
  };
  const bool moves = step.reaper != kOutside;
  if (moves) call_in(step.reaper, SYS_prctl, {PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0});
  std::unique_ptr<Puppet> puppet = std::move(temporary_[static_cast<size_t>(step.node)]);
  by_node_[static_cast<size_t>(step.node)] = nullptr;
  puppet->die(0, waiter_);
  if (creator != kOutside &&
      call_in(creator, SYS_wait4, {puppet->pid(), nullptr, WNOHANG | __WALL, nullptr}) != puppet->pid())
    throw Error(Reason::INTERNAL, "a temporary process is not the child of its creator")
        .object(fmt::format("pid {}", puppet->pid()));
  if (moves) call_in(step.reaper, SYS_prctl, {PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0});
}

}  // namespace stasis
