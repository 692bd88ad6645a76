#include "objects/tree_plan.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <algorithm>
#include <map>
#include <random>

namespace stasis {
namespace {

// What the kernel does with processes, sessions, groups and tables; ids are kept while anybody has them.
class Kernel {
 public:
  struct Task {
    pid_t pid, parent, pgid, sid;
    uint32_t files, fs;
    bool zombie = false, reaper = false;
  };
  static constexpr pid_t kInit = 1;

  Kernel() { tasks[kInit] = {kInit, 0, kInit, kInit, ++tables_, ++tables_, false, true}; }

  bool in_use(pid_t id) const {
    return std::ranges::any_of(
        tasks, [&](const auto& t) { return t.first == id || t.second.pgid == id || t.second.sid == id; });
  }
  bool fork(pid_t creator, pid_t pid, uint64_t flags) {
    if (tasks.contains(pid)) return false;
    Task child = tasks.at(creator);
    child.pid = pid;
    child.parent = (flags & CLONE_PARENT) != 0 ? child.parent : creator;
    child.reaper = false;
    if ((flags & CLONE_FILES) == 0) child.files = ++tables_;
    if ((flags & CLONE_FS) == 0) child.fs = ++tables_;
    tasks[pid] = child;
    return true;
  }
  bool setsid(pid_t pid) {
    for (const auto& [id, t] : tasks)
      if (t.pgid == pid) return false;
    tasks.at(pid).sid = tasks.at(pid).pgid = pid;
    return true;
  }
  bool setpgid(pid_t pid, pid_t pgid) {
    Task& task = tasks.at(pid);
    if (task.sid == pid) return false;
    if (pgid != pid &&
        std::ranges::none_of(tasks, [&](const auto& t) { return t.second.pgid == pgid && t.second.sid == task.sid; }))
      return false;
    task.pgid = pgid;
    return true;
  }
  void unshare(pid_t pid, uint64_t flags) {
    if ((flags & CLONE_FILES) != 0) tasks.at(pid).files = ++tables_;
    if ((flags & CLONE_FS) != 0) tasks.at(pid).fs = ++tables_;
  }
  void end(pid_t pid) {
    Task& task = tasks.at(pid);
    task.zombie = true;
    task.files = task.fs = 0;
    pid_t reaper = task.parent;
    while (reaper != kInit && (tasks.at(reaper).zombie || !tasks.at(reaper).reaper)) reaper = tasks.at(reaper).parent;
    for (auto& [id, t] : tasks)
      if (t.parent == pid) t.parent = reaper;
  }
  bool wait(pid_t parent, pid_t pid) {
    if (!tasks.contains(pid) || !tasks.at(pid).zombie || tasks.at(pid).parent != parent) return false;
    tasks.erase(pid);
    return true;
  }
  std::map<pid_t, Task> tasks;

 private:
  uint32_t tables_ = 0;
};

// The tree below `root`, parents before children.
std::vector<TreeProcess> tree_of(const Kernel& kernel, pid_t root) {
  std::vector<TreeProcess> out;
  const auto visit = [&](const auto& self, pid_t pid, int parent) -> void {
    const Kernel::Task& t = kernel.tasks.at(pid);
    out.push_back({pid, t.pgid, t.sid, parent, t.files, t.fs});
    const int index = static_cast<int>(out.size()) - 1;
    for (const auto& [id, child] : kernel.tasks)
      if (child.parent == pid) self(self, id, index);
  };
  visit(visit, root, kOutside);
  return out;
}

// Table numbers in the order in which they are met.
void rename_tables(std::vector<TreeProcess>& tree) {
  std::map<uint32_t, uint32_t> files{{0, 0}}, fs{{0, 0}};
  for (TreeProcess& p : tree) {
    p.files = files.try_emplace(p.files, files.size()).first->second;
    p.fs = fs.try_emplace(p.fs, fs.size()).first->second;
  }
}

// Makes the tree by a plan, as the restoring program does below pid 1. An empty text, or what went wrong.
std::string make(const TreePlan& plan, std::span<const TreeProcess> wanted, const TreeSurroundings& outside) {
  Kernel kernel;
  if (outside.sid != 0) kernel.tasks.at(1).sid = outside.sid, kernel.tasks.at(1).pgid = outside.pgid;
  std::vector<pid_t> pids;
  pid_t next = 100000;
  for (const TreeNode& n : plan.nodes) pids.push_back(n.pid != 0 ? n.pid : ++next);
  const auto pid_of = [&](int node) { return node == kOutside ? Kernel::kInit : pids[static_cast<size_t>(node)]; };
  for (const TreeStep& s : plan.steps) {
    const pid_t pid = pid_of(s.node), creator = pid_of(plan.nodes[static_cast<size_t>(s.node)].creator);
    const std::string who = "step " + std::to_string(&s - plan.steps.data()) + " of pid " + std::to_string(pid);
    switch (s.kind) {
      case TreeStep::Kind::create:
        if (!kernel.tasks.contains(creator)) return who + ": its creator does not exist";
        if (!kernel.fork(creator, pid, s.tables)) return who + ": it exists";
        break;
      case TreeStep::Kind::new_session:
        if (!kernel.setsid(pid)) return who + ": setsid";
        break;
      case TreeStep::Kind::join_group:
        if (!kernel.setpgid(pid, s.pgid)) return who + ": setpgid " + std::to_string(s.pgid);
        break;
      case TreeStep::Kind::unshare:
        kernel.unshare(pid, s.tables);
        break;
      case TreeStep::Kind::end:
        kernel.tasks.at(pid_of(s.reaper)).reaper = true;
        kernel.end(pid);
        if (s.reaper != kOutside) kernel.tasks.at(pid_of(s.reaper)).reaper = false;
        if (!kernel.wait(creator, pid)) return who + ": not the child of its creator";
        break;
    }
  }
  if (wanted.size() + 1 != kernel.tasks.size()) return "something is left, or missing";
  std::vector<TreeProcess> want(wanted.begin(), wanted.end()), made;
  for (const TreeProcess& w : want) {
    const auto found = kernel.tasks.find(w.pid);
    if (found == kernel.tasks.end()) return "pid " + std::to_string(w.pid) + " is missing";
    const Kernel::Task& t = found->second;
    // The dead have no tables.
    made.push_back({t.pid, t.pgid, t.sid, w.parent, w.files == 0 ? 0 : t.files, w.fs == 0 ? 0 : t.fs});
    const pid_t parent = w.parent == kOutside ? Kernel::kInit : want[static_cast<size_t>(w.parent)].pid;
    if (t.parent != parent) return "pid " + std::to_string(w.pid) + " has another parent";
  }
  rename_tables(made);
  rename_tables(want);
  for (size_t i = 0; i < want.size(); ++i) {
    const TreeProcess &m = made[i], &w = want[i];
    if (m.sid != w.sid || m.pgid != w.pgid) return "pid " + std::to_string(w.pid) + " has another session or group";
    if (m.files != w.files || m.fs != w.fs) return "pid " + std::to_string(w.pid) + " shares other tables";
  }
  return {};
}

std::string make(std::span<const TreeProcess> tree, const TreeSurroundings& outside = {}) {
  return make(plan_tree(tree, outside, Reason::UNSUPPORTED_STATE), tree, outside);
}

using Tree = std::vector<TreeProcess>;

TEST(TreePlan, PlainTree) {
  const Tree tree{{10, 10, 10, -1, 1, 2}, {11, 10, 10, 0, 3, 4}, {12, 12, 10, 0, 5, 6}, {13, 12, 10, 2, 7, 8}};
  EXPECT_TRUE(is_plain_tree(tree));
  EXPECT_EQ(make(tree), "");
  const TreePlan plan = plan_tree(tree, {}, Reason::UNSUPPORTED_STATE);
  EXPECT_EQ(plan.nodes.size(), tree.size());
  EXPECT_TRUE(std::ranges::none_of(plan.steps, [](const TreeStep& s) { return s.kind == TreeStep::Kind::end; }));
}

TEST(TreePlan, SessionOfTheParentBeforeItLed) {
  // 12 was born before 11 called setsid.
  EXPECT_EQ(make(Tree{{10, 10, 10}, {11, 11, 11, 0}, {12, 10, 10, 1}}), "");
}

TEST(TreePlan, OrphanOfALivingLeader) {
  // 13 was a child of a member of session 12, below 11.
  EXPECT_EQ(make(Tree{{10, 10, 10}, {11, 10, 10, 0}, {12, 12, 12, 1}, {13, 12, 12, 0}}), "");
}

TEST(TreePlan, DeadSessionLeader) {
  const Tree tree{{10, 10, 10}, {12, 11, 11, 0}, {13, 11, 11, 1}};
  EXPECT_FALSE(is_plain_tree(tree));
  EXPECT_EQ(make(tree), "");
}

TEST(TreePlan, RootOfADeadSession) {
  EXPECT_EQ(make(Tree{{10, 9, 9}, {11, 9, 9, 0}}), "");
  EXPECT_EQ(make(Tree{{10, 10, 9}, {11, 11, 11, 0}, {12, 9, 9, 1}}), "");
}

TEST(TreePlan, RootThatWasInADeadSession) {
  EXPECT_EQ(make(Tree{{10, 10, 10}, {11, 9, 9, 0}, {12, 12, 12, 0}, {13, 9, 9, 2}}), "");
}

TEST(TreePlan, SessionFromOutside) {
  EXPECT_EQ(make(Tree{{10, 5, 4}, {11, 11, 4, 0}, {12, 12, 12, 0}, {13, 5, 4, 2}}, {.sid = 4, .pgid = 5}), "");
}

TEST(TreePlan, FormerMembersOfADeadSession) {
  // 11 and 12 were in session 9, have children in it, and lead sessions of their own.
  EXPECT_EQ(make(Tree{{10, 10, 10}, {11, 11, 11, 0}, {13, 9, 9, 1}, {12, 12, 12, 0}, {14, 9, 9, 3}}), "");
}

TEST(TreePlan, DeadGroupLeader) {
  EXPECT_EQ(make(Tree{{10, 10, 10}, {11, 9, 10, 0}, {12, 9, 10, 1}}), "");
}

TEST(TreePlan, GroupWhoseLeaderLeft) {
  EXPECT_EQ(make(Tree{{10, 10, 10}, {11, 10, 10, 0}, {12, 11, 10, 0}}), "");
}

TEST(TreePlan, LeadersOfEachOthersGroups) {
  EXPECT_EQ(make(Tree{{10, 10, 10}, {11, 12, 10, 0}, {12, 11, 10, 0}}), "");
}

TEST(TreePlan, TablesSharedWithParentSiblingAndGrandparent) {
  EXPECT_EQ(make(Tree{{10, 10, 10, -1, 1, 2}, {11, 10, 10, 0, 1, 3}}), "");
  EXPECT_EQ(make(Tree{{10, 10, 10, -1, 1, 2}, {11, 10, 10, 0, 3, 4}, {12, 10, 10, 0, 3, 5}}), "");
  EXPECT_EQ(make(Tree{{10, 10, 10, -1, 1, 2}, {11, 10, 10, 0, 3, 4}, {12, 10, 10, 1, 1, 2}}), "");
  EXPECT_EQ(make(Tree{{10, 10, 10, -1, 1, 2},
                      {11, 10, 10, 0, 3, 4},
                      {12, 10, 10, 0, 3, 5},
                      {13, 10, 10, 0, 6, 7},
                      {14, 10, 10, 0, 6, 8}}),
            "");
}

TEST(TreePlan, OrphanedGroups) {
  const Tree tree{{10, 10, 10, -1, 1, 1}, {11, 11, 10, 0, 2, 2}, {12, 11, 10, 1, 3, 3}, {13, 13, 13, 1, 4, 4}};
  EXPECT_FALSE(is_orphaned_group(tree, 11));
  EXPECT_TRUE(is_orphaned_group(tree, 10));
  EXPECT_TRUE(is_orphaned_group(tree, 13));
}

TEST(TreePlan, WhatNoHistoryExplainsIsRefused) {
  // Its session is led from below a sibling of its parent; its group is one of another session.
  EXPECT_THROW(make(Tree{{10, 10, 10}, {11, 10, 10, 0}, {12, 11, 11, 0}, {13, 12, 11, 2}, {14, 11, 10, 0}}), Error);
  EXPECT_THROW(make(Tree{{10, 10, 10}, {11, 10, 11, 0}}), Error);
  EXPECT_THROW(make(Tree{{10, 10, 10}, {11, 12, 11, 0}}), Error);
  // Leaders below each other's members.
  EXPECT_THROW(make(Tree{{10, 10, 10}, {11, 10, 10, 0}, {12, 10, 10, 0}, {13, 8, 8, 1}, {14, 8, 8, 2}}), Error);
}

TEST(TreePlan, ExitSignalsComeFromTheParent) {
  // Born of its parent it can have any. Out of the dead session of its parent's other child it was adopted.
  EXPECT_NO_THROW(plan_tree(Tree{{10, 10, 10, -1, 1, 1}, {11, 10, 10, 0, 2, 2, SIGUSR1}, {12, 12, 12, 0, 3, 3, 0}}, {},
                            Reason::UNSUPPORTED_STATE));
  const auto adopted = [](int signal) {
    return plan_tree(Tree{{10, 10, 10, -1, 1, 1}, {11, 8, 8, 0, 2, 2, signal}}, {}, Reason::UNSUPPORTED_STATE);
  };
  EXPECT_NO_THROW(adopted(SIGCHLD));
  EXPECT_THROW(adopted(SIGUSR1), Error);
}

// Processes that do what processes do, at random. Each history ends in a tree that exists, so it can be made.
class History {
 public:
  explicit History(unsigned seed, bool restless) : random_(seed), restless_(restless) {
    kernel_.fork(Kernel::kInit, next_, 0);
    root_ = next_++;
    kernel_.setsid(root_);
    kernel_.tasks.at(root_).reaper = pick(3) != 0;
    for (size_t steps = 5 + pick(60); steps > 0; --steps) act();
  }

  Tree tree() const { return tree_of(kernel_, root_); }

 private:
  size_t pick(size_t below) { return random_() % below; }

  void act() {
    std::vector<pid_t> living;
    for (const auto& [pid, t] : kernel_.tasks)
      if (pid != Kernel::kInit && !t.zombie) living.push_back(pid);
    const pid_t pid = living[pick(living.size())];
    const Kernel::Task task = kernel_.tasks.at(pid);
    switch (pick(12)) {
      case 0:
      case 1:
      case 2:
      case 3: {
        uint64_t flags = 0;
        if (pick(5) == 0) flags |= CLONE_FILES;
        if (pick(5) == 0) flags |= CLONE_FS;
        if (pick(6) == 0 && pid != root_) flags |= CLONE_PARENT;
        while (kernel_.in_use(next_)) ++next_;
        kernel_.fork(pid, next_++, flags);
        break;
      }
      case 4:
        kernel_.setsid(pid);
        break;
      case 5:
        kernel_.setpgid(pid, pid);
        break;
      case 6:
        kernel_.setpgid(pid, kernel_.tasks.at(living[pick(living.size())]).pgid);
        break;
      case 7:
        if (restless_) kernel_.tasks.at(pid).reaper = !task.reaper;
        break;
      case 8:
      case 9:
      case 10: {
        if (pid == root_) break;
        const pid_t parent = task.parent;
        kernel_.end(pid);
        if (pick(4) != 0) kernel_.wait(parent, pid);
        break;
      }
      case 11:
        kernel_.unshare(pid, pick(2) == 0 ? CLONE_FILES : CLONE_FS);
        break;
    }
  }

  std::mt19937 random_;
  bool restless_;
  Kernel kernel_;
  pid_t next_ = 10, root_ = 0;
};

TEST(TreePlan, RandomHistories) {
  size_t refused = 0, made = 0, temporary = 0;
  for (unsigned seed = 1; seed <= 4000; ++seed) {
    const Tree tree = History(seed, seed % 4 == 0).tree();
    TreePlan plan;
    try {
      plan = plan_tree(tree, {}, Reason::UNSUPPORTED_STATE);
    } catch (const Error& e) {
      ++refused;
      continue;
    }
    ++made;
    temporary += plan.nodes.size() - tree.size();
    ASSERT_EQ(make(plan, tree, {}), "") << "seed " << seed;
  }
  // A few were born of processes whose whole line is gone.
  EXPECT_LT(refused, 10u) << made << " made";
  EXPECT_GT(temporary, made / 4);
}

// Images may claim anything: an error or a plan, and never without end.
TEST(TreePlan, Nonsense) {
  std::mt19937 random(7);
  for (int round = 0; round < 4000; ++round) {
    Tree tree;
    const int n = 1 + static_cast<int>(random() % 12);
    for (int i = 0; i < n; ++i) {
      const auto any = [&] { return static_cast<pid_t>(10 + random() % 14); };
      tree.push_back({10 + i, any(), any(), i == 0 ? kOutside : static_cast<int>(random() % static_cast<unsigned>(i)),
                      1 + static_cast<uint32_t>(random() % 6), 1 + static_cast<uint32_t>(random() % 9)});
    }
    try {
      const TreePlan plan = plan_tree(tree, {}, Reason::IMAGE_CORRUPT);
      EXPECT_EQ(make(plan, tree, {}), "") << "round " << round;
    } catch (const Error& e) {
      EXPECT_EQ(e.reason(), Reason::IMAGE_CORRUPT);
    }
  }
}

}  // namespace
}  // namespace stasis
