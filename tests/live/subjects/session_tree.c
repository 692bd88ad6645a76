// A tree with sessions and process groups: children in the parent's group, in a group of their own, in the group of
// a sibling, in a session of their own, and one that became a session leader after it had a child.
#include "subject.h"

enum { kTasks = 7 };
struct task {
  const char* tag;
  int parent;   // index, -1: the root
  int group;    // index of the group leader
  int session;  // index of the session leader
};
// Index 0 is the root, a session leader by the driver. Parents come before their children.
static const struct task kTree[kTasks] = {
    {"root", -1, 0, 0},   {"same", 0, 0, 0},  {"leader", 0, 2, 0}, {"member", 0, 2, 0},
    {"session", 0, 4, 4}, {"below", 4, 4, 4}, {"older", 4, 0, 0},
};

static void pid_file(int index, const char* what, char* name, size_t size) {
  snprintf(name, size, "%s.%s", what, kTree[index].tag);
}
static pid_t known_pid(int index) {
  char name[64], text[32];
  pid_file(index, "pid", name, sizeof name);
  REQUIRE(WAIT_UNTIL(subject_read_file(subject_path(name), text, sizeof text) > 0));
  return atoi(text);
}
static void announce(int index, const char* what) {
  char name[64], text[32];
  pid_file(index, what, name, sizeof name);
  snprintf(text, sizeof text, "%d\n", getpid());
  subject_write_file(name, text);
}

static void check_self(int index, pid_t own, pid_t parent, pid_t group, pid_t session) {
  const char* tag = kTree[index].tag;
  CHECK(getpid() == own, "%s: pid %d, was %d", tag, getpid(), own);
  if (kTree[index].parent >= 0) CHECK(getppid() == parent, "%s: parent %d, was %d", tag, getppid(), parent);
  CHECK(getpgid(0) == group, "%s: group %d, was %d", tag, getpgid(0), group);
  CHECK(getsid(0) == session, "%s: session %d, was %d", tag, getsid(0), session);
}

static void run(int index);

// "older" must be forked before its parent calls setsid: it stays in the root's session.
static void fork_children(int index, bool before_setsid, pid_t* children) {
  for (int i = 1; i < kTasks; i++) {
    bool early = kTree[index].session == index && index != 0 && kTree[i].session != index;
    if (kTree[i].parent != index || early != before_setsid) continue;
    children[i] = fork();
    REQUIRE(children[i] >= 0);
    if (children[i] == 0) run(i);
  }
}

static void run(int index) {
  pid_t children[kTasks] = {0};
  announce(index, "pid");
  fork_children(index, true, children);
  if (index != 0 && kTree[index].session == index)
    REQUIRE(setsid() == getpid());
  else if (index != 0 && kTree[index].group == index)
    REQUIRE(setpgid(0, 0) == 0);
  announce(index, "group");
  fork_children(index, false, children);
  int leader = kTree[index].group;
  if (index != 0 && leader != index && kTree[leader].session == kTree[index].session) {
    char name[64];
    pid_file(leader, "group", name, sizeof name);
    if (leader != 0) REQUIRE(WAIT_UNTIL(access(subject_path(name), F_OK) == 0));
    REQUIRE(setpgid(0, known_pid(leader)) == 0);
  }
  announce(index, "up");
  pid_t own = getpid(), parent = getppid(), group = known_pid(leader), session = known_pid(kTree[index].session);
  if (index == 0) {
    for (int i = 1; i < kTasks; i++) {
      char name[64];
      pid_file(i, "up", name, sizeof name);
      REQUIRE(WAIT_UNTIL(access(subject_path(name), F_OK) == 0));
    }
    subject_ready();
  }
  while (subject_next()) {
    check_self(index, own, parent, group, session);
    for (int i = 1; i < kTasks; i++) {
      if (children[i] == 0) continue;
      subject_collect(kTree[i].tag);
      subject_join(children[i]);
    }
    if (index == 0)
      subject_verdict();
    else
      subject_part(kTree[index].tag);
  }
  _exit(subject_status());
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  if (getsid(0) != getpid() || getpgid(0) != getpid()) {
    errno = 0;
    die("the driver must start this program as a session leader");
  }
  run(0);
}
