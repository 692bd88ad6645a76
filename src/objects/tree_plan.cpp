#include "objects/tree_plan.h"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <array>
#include <deque>
#include <map>
#include <optional>
#include <set>

namespace stasis {

namespace {

// When a node creates another, relative to something that happens to the creator once.
enum class When { any, before, after };

// What happens to a creator between births.
enum Event : size_t { kSetsid, kUnshareFiles, kUnshareFs, kEvents };

struct Birth {
  int creator = kOutside;
  std::array<When, kEvents> when{};
  uint64_t tables = 0;
};

class TreePlanner {
 public:
  TreePlanner(std::span<const TreeProcess> processes, const TreeSurroundings& outside, Reason refusal)
      : all_(processes), outside_(outside), refusal_(refusal) {}

  TreePlan plan() {
    for (int i = 0; i < count(); ++i) {
      index_[process(i).pid] = i;
      if (process(i).files != 0) files_[process(i).files].push_back(i);
      if (process(i).fs != 0) fs_[process(i).fs].push_back(i);
    }
    place_leaders();
    choose_creators();
    check_creators();
    share_tables(CLONE_FILES, kUnshareFiles, &TreeProcess::files, files_);
    share_tables(CLONE_FS, kUnshareFs, &TreeProcess::fs, fs_);
    emit_births();
    emit_groups();
    emit_moves();
    return std::move(plan_);
  }

 private:
  static size_t at(int i) { return static_cast<size_t>(i); }
  const TreeProcess& process(int i) const { return all_[at(i)]; }
  int count() const { return static_cast<int>(all_.size()); }
  bool leads(int i) const { return process(i).sid == process(i).pid; }

  [[noreturn]] void refuse(int i, const std::string& what) const {
    throw Error(refusal_, what)
        .object(fmt::format("pid {}", process(i).pid))
        .remedy("no order of births, sessions and ends that is known leads to this tree; let the process end or move");
  }

  // Whether `above` is an ancestor of `i` in the tree as it is to be, or `i` itself.
  bool is_above(int above, int i) const {
    if (above == kOutside) return true;
    // Parents come before children.
    while (i > above) i = process(i).parent;
    return i == above;
  }

  // ---- where sessions begin -------------------------------------------------------------------------------

  struct Session {
    int leader = -1;  // process; -1: dead, or outside
    bool outside = false;
    std::vector<int> members;    // without the leader
    std::vector<int> born_here;  // leaders of other sessions that were in this one before
    int place = kOutside;        // its leader is created by this process, or below it
    int stand_in = -1;           // node, if the leader is dead
  };

  // The leader of a session must be created below all processes that have a child in that session and are not in it
  // themselves: the child was moved there from below. The other explanation is that such a process leads a session of
  // its own and was in this one before; then it is the leader's descendant. Found by making the second choice wherever
  // the first one is impossible.
  void place_leaders() {
    births_.assign(all_.size(), 0);
    for (int i = 0; i < count(); ++i) {
      Session& s = sessions_[process(i).sid];
      if (leads(i)) {
        s.leader = i;
        s.place = process(i).parent;
      } else {
        s.members.push_back(i);
      }
    }
    for (auto& [sid, s] : sessions_) {
      s.outside = sid == outside_.sid && s.leader < 0;
      if (s.leader < 0 && index_.contains(sid)) refuse(index_.at(sid), "its id is that of a session that it is not in");
    }
    // Each round that changes something decides about one leader for good, or places one deeper.
    for (size_t round = 0; place_once(); ++round)
      if (round > 4 * all_.size()) refuse(0, "the sessions of the tree contradict each other");
  }

  bool place_once() {
    for (auto& [sid, s] : sessions_) {
      const std::map<int, int> tops = parents_outside(sid, s);
      int deepest = s.leader >= 0 ? process(s.leader).parent : kOutside;
      bool chain = true;
      for (const auto& [top, child] : tops) {
        if (is_below_member(top, sid) || (s.outside && top != kOutside)) {
          chain = false;
          continue;
        }
        if (is_above(top, deepest)) continue;
        if (is_above(deepest, top)) {
          // A leader that lives and is not below is moved away later; a former member explains it better.
          if (s.leader >= 0 && was_member(top, sid)) return true;
          deepest = top;
        } else {
          chain = false;
        }
      }
      if (!chain) {
        if (explain_by_birth(sid, s, tops)) return true;
        refuse(tops.rbegin()->second, "no process that is in its session can have been above it or its parent");
      }
      if (deepest != s.place && (s.leader >= 0 || !s.outside)) {
        s.place = deepest;
        return true;
      }
    }
    return false;
  }

  // Parents of members that are not in the session, each with one such child.
  std::map<int, int> parents_outside(pid_t sid, const Session& s) const {
    std::map<int, int> tops;
    const auto in_it = [&](int parent) {
      return parent != kOutside && (process(parent).sid == sid || births_[at(parent)] == sid);
    };
    for (int m : s.members)
      if (!in_it(process(m).parent)) tops[process(m).parent] = m;
    for (int q : s.born_here) {
      const int place = sessions_.at(process(q).pid).place;
      if (!in_it(place)) tops[place] = q;
    }
    return tops;
  }

  // Such a process exists because of the session, and not before it.
  bool is_below_member(int i, pid_t sid) const {
    for (; i != kOutside; i = process(i).parent)
      if (process(i).sid == sid || births_[at(i)] == sid) return true;
    return false;
  }

  // Decides that a leader of its own session was born in another one, if nothing is decided yet.
  bool was_member(int top, pid_t sid) {
    if (top == kOutside || !leads(top) || births_[at(top)] != 0) return false;
    births_[at(top)] = sid;
    sessions_.at(sid).born_here.push_back(top);
    return true;
  }

  // The tops are not all above one place: those that are not above every other one were members.
  bool explain_by_birth(pid_t sid, const Session& s, const std::map<int, int>& tops) {
    bool changed = false;
    for (auto top = tops.rbegin(); top != tops.rend(); ++top) {
      const bool above_all = !s.outside && (s.leader < 0 || is_above(top->first, s.leader)) &&
                             !is_below_member(top->first, sid) &&
                             std::ranges::all_of(tops, [&](const auto& t) { return is_above(top->first, t.first); });
      if (!above_all) changed = was_member(top->first, sid) || changed;
    }
    return changed;
  }

  // ---- who creates whom -----------------------------------------------------------------------------------

  int add_temporary(pid_t pid, Birth birth) {
    plan_.nodes.push_back({pid, -1, birth.creator});
    born_.push_back(birth);
    return static_cast<int>(plan_.nodes.size()) - 1;
  }

  void choose_creators() {
    for (int i = 0; i < count(); ++i) plan_.nodes.push_back({process(i).pid, i, kOutside});
    born_.resize(all_.size());
    for (auto& [sid, s] : sessions_) {
      if (s.leader >= 0 || s.outside) continue;
      if (s.place != kOutside || !s.members.empty()) {
        s.stand_in = add_temporary(sid, {s.place, after_setsid(), 0});
        ends_.push_back({s.stand_in, s.place});
      }
    }
    for (int i = 0; i < count(); ++i) choose_creator(i);
    for (size_t i = 0; i < born_.size(); ++i) plan_.nodes[i].creator = born_[i].creator;
  }

  static std::array<When, kEvents> after_setsid() { return {When::after, When::any, When::any}; }
  static std::array<When, kEvents> before_setsid() { return {When::before, When::any, When::any}; }

  void choose_creator(int i) {
    const int parent = process(i).parent;
    const pid_t sid = leads(i) ? births_[at(i)] : process(i).sid;  // the one it is born into; 0: any
    const int place = leads(i) ? sessions_.at(process(i).pid).place : parent;
    Birth birth{place, after_setsid(), 0};
    if (sid != 0 && !(place != kOutside && process(place).sid == sid)) {
      if (place != kOutside && births_[at(place)] == sid)
        birth.when = before_setsid();
      else if (!(place == kOutside && sid == outside_.sid))
        birth.creator = member_of(sid, i);
    }
    // Only a stand-in ends by itself; whoever lives needs somebody to end in its place. So do those who share a table
    // with each other that neither creator nor parent has.
    const std::array<uint32_t, 2> tables = tables_from_aside(i, birth.creator);
    const bool by_stand_in = birth.creator >= count() && place_of(birth.creator) == parent;
    const bool directly = birth.creator == parent || by_stand_in;
    if (!directly || (tables != std::array<uint32_t, 2>{} && birth.creator != kOutside))
      birth = {mediator(birth, parent, tables), after_setsid(), 0};
    born_[at(i)] = birth;
  }

  // Tables that a process shares with others that do not descend from it, unless it can have them from its creator.
  std::array<uint32_t, 2> tables_from_aside(int i, int creator) const {
    std::array<uint32_t, 2> out{};
    for (const auto& [table, slot] :
         {std::pair(&TreeProcess::files, size_t{0}), std::pair(&TreeProcess::fs, size_t{1})}) {
      const uint32_t id = process(i).*table;
      if (id == 0 || (creator >= 0 && creator < count() && process(creator).*table == id)) continue;
      const auto& sharers = slot == 0 ? files_ : fs_;
      if (std::ranges::any_of(sharers.at(id), [&](int other) { return !is_above(i, other); })) out[slot] = id;
    }
    return out;
  }

  int place_of(int stand_in) const { return born_[at(stand_in)].creator; }

  // A node that is in the session for as long as the tree is built.
  int member_of(pid_t sid, int for_process) const {
    const Session& s = sessions_.at(sid);
    if (s.outside) return 0;
    if (s.leader >= 0) return s.leader;
    if (s.stand_in < 0) refuse(for_process, "nobody is in the session that it was born into");
    return s.stand_in;
  }

  // The temporary process between a creator and children that are to become those of `reaper`.
  int mediator(const Birth& birth, int reaper, const std::array<uint32_t, 2>& tables) {
    const auto [found, fresh] = mediators_.try_emplace({birth.creator, birth.when[kSetsid], reaper, tables}, 0);
    if (fresh) {
      found->second = add_temporary(0, birth);
      ends_.push_back({found->second, reaper});
    }
    return found->second;
  }

  // Creators form a tree, and every parent is above its children in it: ends can only move them up.
  void check_creators() {
    depth_.assign(plan_.nodes.size(), 0);
    for (size_t i = 0; i < plan_.nodes.size(); ++i) {
      size_t depth = 0;
      for (int up = static_cast<int>(i); up != kOutside; up = plan_.nodes[at(up)].creator)
        if (++depth > plan_.nodes.size())
          refuse(std::max(plan_.nodes[i].process, 0), "its session would have to exist before its leader");
      depth_[i] = depth;
    }
    for (int i = 0; i < count(); ++i) {
      const int parent = process(i).parent;
      int up = plan_.nodes[at(i)].creator;
      while (up != kOutside && up != parent) up = plan_.nodes[at(up)].creator;
      if (up != parent) refuse(i, "its parent cannot have been above the process that created it");
      // Whoever adopts an orphan is told by SIGCHLD from then on (reparent_leader() in the kernel).
      if (parent != kOutside && process(i).exit_signal != SIGCHLD && plan_.nodes[at(i)].creator != parent)
        refuse(i, fmt::format("its parent, which is told of its end by signal {}, cannot have created it",
                              process(i).exit_signal));
    }
  }

  // ---- shared tables --------------------------------------------------------------------------------------

  // A table goes from creator to created. All nodes between the sharers carry it; one that has another table in the end
  // makes a copy of its own when it has passed it on.
  void share_tables(uint64_t flag, Event event, uint32_t TreeProcess::*table,
                    const std::map<uint32_t, std::vector<int>>& sharers) {
    std::vector<uint32_t> given(plan_.nodes.size(), 0);   // to a node by its creator
    std::vector<uint32_t> passed(plan_.nodes.size(), 0);  // by a node that will not keep it
    const auto crosswise = [&](int i) { refuse(i, "it shares tables with processes that are related crosswise"); };
    const auto own = [&](int node) { return node < count() ? process(node).*table : 0; };
    for (const auto& [id, who] : sharers) {
      if (who.size() < 2) continue;
      std::map<int, size_t> on_path;
      for (int node : who)
        for (int up = node; up != kOutside; up = plan_.nodes[at(up)].creator) ++on_path[up];
      // The last one that all come from.
      size_t nearest_depth = 0;
      for (const auto& [node, times] : on_path)
        if (times == who.size()) nearest_depth = std::max(nearest_depth, depth_[at(node)]);
      for (const auto& [node, times] : on_path) {
        const int creator = plan_.nodes[at(node)].creator;
        const bool top = times == who.size();
        if (top && depth_[at(node)] < nearest_depth) continue;
        if (own(node) != id) {
          if (passed[at(node)] != 0) crosswise(who.back());
          passed[at(node)] = id;
        }
        if (top) continue;
        if (creator == kOutside) refuse(who.back(), "it shares a table with a process outside of the tree");
        if (given[at(node)] != 0) crosswise(who.back());
        given[at(node)] = id;
        born_[at(node)].tables |= flag;
        born_[at(node)].when[event] = own(creator) == id ? When::after : When::before;
      }
    }
    for (size_t node = 0; node < plan_.nodes.size(); ++node) {
      // What it is given it has first, and what it passes on it must have before its own.
      if (given[node] != 0 && passed[node] != 0 && given[node] != passed[node])
        crosswise(std::max(plan_.nodes[node].process, 0));
      if (passed[node] != 0 && own(static_cast<int>(node)) != 0) unshares_[static_cast<int>(node)] |= flag;
    }
  }

  // ---- steps ----------------------------------------------------------------------------------------------

  void step(TreeStep::Kind kind, int node, uint64_t tables = 0) {
    plan_.steps.push_back({.kind = kind, .node = node, .tables = tables});
  }

  bool is_stand_in(int node) const {
    return node >= count() && plan_.nodes[at(node)].pid != 0 && sessions_.contains(plan_.nodes[at(node)].pid);
  }

  void emit_births() {
    std::vector<std::vector<int>> created(plan_.nodes.size());
    std::deque<int> next;
    for (size_t i = 0; i < plan_.nodes.size(); ++i) {
      const int creator = plan_.nodes[i].creator;
      if (creator == kOutside)
        next.push_back(static_cast<int>(i));
      else
        created[at(creator)].push_back(static_cast<int>(i));
    }
    for (int node : next) step(TreeStep::Kind::create, node);
    // Level by level: those of a level are driven at once.
    for (; !next.empty(); next.pop_front()) {
      emit_births_of(next.front(), created[at(next.front())]);
      for (int child : created[at(next.front())]) next.push_back(child);
    }
  }

  void emit_births_of(int node, const std::vector<int>& children) {
    std::vector<Event> events;
    if (is_stand_in(node) || (node < count() && leads(node))) events.push_back(kSetsid);
    const auto unshares = unshares_.find(node);
    const uint64_t tables = unshares == unshares_.end() ? 0 : unshares->second;
    if ((tables & CLONE_FILES) != 0) events.push_back(kUnshareFiles);
    if ((tables & CLONE_FS) != 0) events.push_back(kUnshareFs);
    std::sort(events.begin(), events.end());
    do {
      if (emit_in_order(node, children, events)) return;
    } while (std::next_permutation(events.begin(), events.end()));
    refuse(std::max(plan_.nodes[at(node)].process, 0),
           "its children differ in what they took from it, in a way that no order of births explains");
  }

  // Tries one order of events: each child is born as late as it can.
  bool emit_in_order(int node, const std::vector<int>& children, const std::vector<Event>& events) {
    std::vector<std::vector<int>> slots(events.size() + 1);
    for (int child : children) {
      std::optional<size_t> slot;
      for (size_t s = 0; s <= events.size(); ++s) {
        const bool fits = [&] {
          for (size_t e = 0; e < events.size(); ++e) {
            const When when = born_[at(child)].when[events[e]];
            if (when == When::before && e < s) return false;
            if (when == When::after && e >= s) return false;
          }
          return true;
        }();
        if (fits) slot = s;
      }
      if (!slot) return false;
      slots[*slot].push_back(child);
    }
    for (size_t s = 0; s < slots.size(); ++s) {
      for (int child : slots[s]) step(TreeStep::Kind::create, child, born_[at(child)].tables);
      if (s == events.size()) break;
      if (events[s] == kSetsid)
        step(TreeStep::Kind::new_session, node);
      else
        step(TreeStep::Kind::unshare, node, events[s] == kUnshareFiles ? CLONE_FILES : CLONE_FS);
    }
    return true;
  }

  // ---- groups ---------------------------------------------------------------------------------------------

  void join(int node, pid_t pgid) {
    plan_.steps.push_back({.kind = TreeStep::Kind::join_group, .node = node, .pgid = pgid});
  }

  int group_temporary(pid_t pid, int creator) {
    const int node = add_temporary(pid, {creator, {}, 0});
    step(TreeStep::Kind::create, node);
    return node;
  }

  // A group begins with its leader and lasts as long as it has members (O-17). A leader may have left it.
  void emit_groups() {
    std::map<pid_t, std::vector<int>> groups;
    for (int i = 0; i < count(); ++i) {
      const TreeProcess& p = process(i);
      if (leads(i) && p.pgid != p.pid) refuse(i, "it leads a session, but not its process group");
      if (!(p.pgid == outside_.pgid && p.sid == outside_.sid)) groups[p.pgid].push_back(i);
    }
    std::vector<int> temporary, left;
    for (const auto& [pgid, members] : groups) begin_group(pgid, members, temporary, left);
    for (const auto& [pgid, members] : groups) {
      bool lasts = false;
      for (int m : members) {
        if (process(m).pid == pgid) lasts = true;
        if (process(m).pid == pgid || std::ranges::find(left, m) != left.end()) continue;
        lasts = true;
        if (!is_born_into_group(m)) join(m, pgid);
      }
      // All members come from groups that they lead now: somebody has to wait for them here.
      const auto leader = index_.find(pgid);
      if (!lasts && leader != index_.end() && std::ranges::find(left, leader->second) != left.end())
        temporary.push_back(group_temporary(0, leader->second));
    }
    for (int node : left) join(node, process(node).pgid);
    for (int node : temporary) step(TreeStep::Kind::end, node);
  }

  void begin_group(pid_t pgid, const std::vector<int>& members, std::vector<int>& temporary, std::vector<int>& left) {
    const auto found = index_.find(pgid);
    const auto session = sessions_.find(pgid);
    const bool led_by_stand_in = session != sessions_.end() && session->second.stand_in >= 0;
    const pid_t sid = led_by_stand_in ? pgid : process(found == index_.end() ? members.front() : found->second).sid;
    for (int m : members)
      if (process(m).sid != sid) refuse(m, "its process group belongs to another session");
    if (led_by_stand_in) return;
    if (found == index_.end()) {
      temporary.push_back(group_temporary(pgid, members.front()));
      join(temporary.back(), pgid);
      return;
    }
    const int leader = found->second;
    if (leads(leader)) return;
    join(leader, pgid);
    if (process(leader).pgid != pgid) left.push_back(leader);
  }

  // In the group of its session since its birth: setsid makes both, and nobody has joined another one before.
  bool is_born_into_group(int i) const {
    return process(i).pgid == process(i).sid && !sessions_.at(process(i).sid).outside;
  }

  // Deepest first: whoever is moved takes along those below it, whose parents may be between.
  void emit_moves() {
    std::ranges::stable_sort(ends_,
                             [&](const auto& a, const auto& b) { return depth_[at(a.first)] > depth_[at(b.first)]; });
    for (const auto& [node, reaper] : ends_)
      plan_.steps.push_back({.kind = TreeStep::Kind::end, .node = node, .reaper = reaper});
  }

  std::span<const TreeProcess> all_;
  TreeSurroundings outside_;
  Reason refusal_;
  std::map<pid_t, int> index_;
  std::map<pid_t, Session> sessions_;
  std::vector<pid_t> births_;  // of leaders: the session they were in before; 0: any
  std::vector<Birth> born_;    // by node
  std::vector<size_t> depth_;  // by node, among creators
  std::map<std::tuple<int, When, int, std::array<uint32_t, 2>>, int> mediators_;
  std::map<uint32_t, std::vector<int>> files_, fs_;  // sharers, by table
  std::vector<std::pair<int, int>> ends_;            // temporary node, who gets its children
  std::map<int, uint64_t> unshares_;
  TreePlan plan_;
};

}  // namespace

TreePlan plan_tree(std::span<const TreeProcess> processes, const TreeSurroundings& outside, Reason refusal) {
  return TreePlanner(processes, outside, refusal).plan();
}

bool is_orphaned_group(std::span<const TreeProcess> processes, pid_t pgid) {
  return std::ranges::none_of(processes, [&](const TreeProcess& p) {
    if (p.pgid != pgid || p.parent == kOutside || p.files == 0) return false;
    const TreeProcess& parent = processes[static_cast<size_t>(p.parent)];
    return parent.pgid != pgid && parent.sid == p.sid;
  });
}

bool is_plain_tree(std::span<const TreeProcess> processes) {
  std::set<pid_t> leaders;
  std::set<uint32_t> files, fs;
  for (const TreeProcess& p : processes) {
    const bool own = p.sid == p.pid && p.pgid == p.pid;
    if (!own && (p.parent == kOutside || p.sid != processes[static_cast<size_t>(p.parent)].sid)) return false;
    if (p.pgid == p.pid) leaders.insert(p.pid);
    if (!leaders.contains(p.pgid)) return false;
    if ((p.files != 0 && !files.insert(p.files).second) || (p.fs != 0 && !fs.insert(p.fs).second)) return false;
  }
  return true;
}

}  // namespace stasis
