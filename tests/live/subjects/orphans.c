// Processes that were moved: children of a dead parent that a sub-reaper adopted, in a session and in a group whose
// leader is gone, in the session of a relative. And a sub-reaper further down goes on adopting.
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "subject.h"

struct shared {
  pid_t lost_session, of_lost_session, lost_group, of_lost_group, leader, of_leader, sibling, reaper;
  int ask, answer;
};
static struct shared* shared;

static void rest(void) {
  for (;;) pause();
}

// A process of a session whose leader ends, and of a group whose leader ends.
static void lose_leaders(void) {
  shared->lost_session = setsid();
  if (fork() == 0) {
    shared->of_lost_session = getpid();
    rest();
  }
  const pid_t group = fork();
  if (group == 0) {
    setpgid(0, 0);
    shared->lost_group = getpid();
    if (fork() == 0) {
      shared->of_lost_group = getpid();
      rest();
    }
    _exit(0);
  }
  waitpid(group, NULL, 0);
  _exit(0);
}

// A leader that lives, below whom a process was born that is not below it any more, and a sibling by CLONE_PARENT.
static void lead(void) {
  shared->leader = setsid();
  const pid_t between = fork();
  if (between == 0) {
    if (fork() == 0) {
      shared->of_leader = getpid();
      rest();
    }
    _exit(0);
  }
  waitpid(between, NULL, 0);
  if (syscall(SYS_clone, CLONE_PARENT | SIGCHLD, NULL, NULL, NULL, NULL) == 0) {
    shared->sibling = getpid();
    rest();
  }
  rest();
}

// When asked, leaves itself an orphan and tells whether it became its child.
static void adopt(void) {
  prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
  shared->reaper = getpid();
  for (;; sleep_ms(1)) {
    if (__atomic_load_n(&shared->ask, __ATOMIC_ACQUIRE) == 0) continue;
    const pid_t between = fork();
    if (between == 0) {
      const pid_t parent = getpid();
      if (fork() == 0) {
        while (getppid() == parent) sched_yield();
        shared->answer = getppid();
        _exit(0);
      }
      _exit(0);
    }
    waitpid(between, NULL, 0);
    waitpid(-1, NULL, 0);
    __atomic_store_n(&shared->ask, 0, __ATOMIC_RELEASE);
  }
}

static pid_t parent_of(pid_t pid) {
  char path[64], text[512];
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  pid_t parent = -1;
  if (subject_read_file(path, text, sizeof text) > 0) sscanf(strrchr(text, ')') + 2, "%*c %d", &parent);
  return parent;
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  shared = mmap(NULL, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  REQUIRE(shared != MAP_FAILED && prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0);
  void (*const lives[])(void) = {lose_leaders, lead, adopt};
  pid_t children[3];
  for (int i = 0; i < 3; i++)
    if ((children[i] = fork()) == 0) lives[i]();
  REQUIRE(waitpid(children[0], NULL, 0) == children[0]);
  REQUIRE(WAIT_UNTIL(__atomic_load_n(&shared->of_leader, __ATOMIC_ACQUIRE) != 0 && shared->sibling != 0 &&
                     shared->reaper != 0 && shared->of_lost_group != 0 && shared->of_lost_session != 0));
  const pid_t self = getpid();
  // Nobody has been told of an end that it has not waited for.
  sigset_t chld;
  sigemptyset(&chld);
  sigaddset(&chld, SIGCHLD);
  REQUIRE(sigprocmask(SIG_BLOCK, &chld, NULL) == 0);
  const struct timespec now = {0, 0};
  while (sigtimedwait(&chld, NULL, &now) == SIGCHLD) {
  }
  for (subject_ready(); subject_next(); subject_verdict()) {
    const struct shared* s = shared;
    CHECK(parent_of(s->of_lost_session) == self && getsid(s->of_lost_session) == s->lost_session &&
              getpgid(s->of_lost_session) == s->lost_session,
          "the process of a session without a leader");
    CHECK(parent_of(s->of_lost_group) == self && getsid(s->of_lost_group) == s->lost_session &&
              getpgid(s->of_lost_group) == s->lost_group,
          "the process of a group without a leader");
    CHECK(kill(s->lost_session, 0) != 0 && kill(s->lost_group, 0) != 0, "a leader is there again");
    CHECK(parent_of(s->of_leader) == self && getsid(s->of_leader) == s->leader, "the orphan of a session that lives");
    CHECK(parent_of(s->sibling) == self && getsid(s->sibling) == s->leader, "the sibling of a leader");
    CHECK(parent_of(s->leader) == self && getsid(s->leader) == s->leader, "the leader");
    shared->answer = 0;
    __atomic_store_n(&shared->ask, 1, __ATOMIC_RELEASE);
    CHECK(WAIT_UNTIL(__atomic_load_n(&shared->ask, __ATOMIC_ACQUIRE) == 0), "the sub-reaper does not answer");
    CHECK(shared->answer == shared->reaper, "its orphan went to %d", shared->answer);
    sigset_t pending;
    sigpending(&pending);
    CHECK(sigismember(&pending, SIGCHLD) == 0, "a stray SIGCHLD is pending");
    siginfo_t ended = {0};
    CHECK(waitid(P_ALL, 0, &ended, WEXITED | WNOHANG | WNOWAIT | __WALL) == 0 && ended.si_pid == 0,
          "%d has ended as a child", ended.si_pid);
    if (!subject_last) continue;
    const pid_t all[] = {s->of_lost_session, s->of_lost_group, s->of_leader, s->sibling, s->leader, s->reaper};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
      kill(all[i], SIGKILL);
      CHECK(waitpid(all[i], NULL, 0) == all[i], "%d is no child", all[i]);
    }
  }
  return subject_status();
}
