// Process trees made at random: `random_trees FILE SEED TREES DAEMON`. Every process of every tree does what it is told
// through shared memory: fork, lead a session or a group, end, adopt orphans, share tables, start threads, stop. When
// all trees stand, FILE gets the pid of the root, and nothing moves any more.
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { kSlots = 4096 };
enum op { kFork, kSetsid, kSetpgid, kEnd, kKill, kReaper, kUnshare, kThread, kStop, kWait, kOps };
struct slot {
  uint32_t told, done;  // counted up: futex words
  enum op op;
  long argument, result;
  pid_t pid;
  bool has_threads;
};
static struct slot* slots;
static unsigned used, mine;

static long futex(uint32_t* word, int op, uint32_t value, const struct timespec* timeout) {
  return syscall(SYS_futex, word, op, value, timeout, NULL, 0);
}

static void* wait_for_ever(void* unused) {
  for (;;) pause();
  return unused;
}

static long act(const struct slot* s) {
  pthread_t thread;
  switch (s->op) {
    case kFork:
      return 0;  // made by serve()
    case kSetsid:
      return setsid();
    case kSetpgid:
      return setpgid(0, (pid_t)s->argument);
    case kEnd:
      _exit((int)s->argument);
    case kKill:
      return kill(getpid(), (int)s->argument);
    case kReaper:
      return prctl(PR_SET_CHILD_SUBREAPER, s->argument, 0, 0, 0);
    case kUnshare:
      return unshare((int)s->argument);
    case kThread:
      return pthread_create(&thread, NULL, wait_for_ever, NULL);
    case kStop:
      return kill(getpid(), (int)s->argument);
    case kWait:
      return waitpid((pid_t)s->argument, NULL, 0);
    case kOps:
      break;
  }
  return -1;
}

// The life of a process of a tree.
static void serve(unsigned self) {
  mine = self;
  uint32_t seen = 0;
  for (;;) {
    struct slot* s = &slots[mine];
    while (__atomic_load_n(&s->told, __ATOMIC_ACQUIRE) == seen) futex(&s->told, FUTEX_WAIT, seen, NULL);
    seen++;
    if (s->op == kFork) {
      const unsigned child = (unsigned)(s->argument >> 32);
      const long pid = syscall(SYS_clone, (s->argument & 0xffffffff) | SIGCHLD, NULL, NULL, NULL, NULL);
      if (pid == 0) {
        mine = child;
        seen = 0;
        continue;
      }
      slots[child].pid = (pid_t)pid;
      s->result = pid;
    } else {
      s->result = act(s);
    }
    __atomic_store_n(&s->done, seen, __ATOMIC_RELEASE);
    futex(&s->done, FUTEX_WAKE, 1, NULL);
  }
}

// ---- the root, which plays fate -------------------------------------------------------------------------------

static uint64_t random_state;
static unsigned pick(unsigned below) {
  random_state = random_state * 6364136223846793005u + 1442695040888963407u;
  return (unsigned)(random_state >> 33) % below;
}

struct seen {
  char state;
  pid_t parent, group, session;
};
static struct seen look(pid_t pid) {
  char path[64], text[512];
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  struct seen out = {'X', 0, 0, 0};
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return out;
  const ssize_t got = read(fd, text, sizeof text - 1);
  close(fd);
  if (got <= 0) return out;
  text[got] = '\0';
  sscanf(strrchr(text, ')') + 2, "%c %d %d %d", &out.state, &out.parent, &out.group, &out.session);
  return out;
}

// False if it cannot act: dead, or stopped.
static bool tell(unsigned slot, enum op op, long argument) {
  struct slot* s = &slots[slot];
  const struct seen before = look(s->pid);
  if (before.state == 'X' || before.state == 'Z' || before.state == 'T') return false;
  s->op = op;
  s->argument = argument;
  const uint32_t number = s->told + 1;
  __atomic_store_n(&s->told, number, __ATOMIC_RELEASE);
  futex(&s->told, FUTEX_WAKE, 1, NULL);
  for (int waited_ms = 0; waited_ms < 5000; waited_ms++) {
    const uint32_t done = __atomic_load_n(&s->done, __ATOMIC_ACQUIRE);
    if (done == number) return true;
    const struct timespec little = {0, 1000000};
    if (op != kEnd && op != kKill && op != kStop) {
      futex(&s->done, FUTEX_WAIT, done, &little);
      continue;
    }
    const char state = look(s->pid).state;
    if (state == 'X' || state == 'Z' || (op == kStop && state == 'T')) return true;
    sched_yield();
  }
  fprintf(stderr, "pid %d does not answer to %d\n", s->pid, op);
  _exit(3);
}

static unsigned slot_of(pid_t pid) {
  for (unsigned i = 1; i < used; i++)
    if (slots[i].pid == pid && look(pid).state != 'X') return i;
  return 0;
}

static void end(unsigned slot) {
  const pid_t pid = slots[slot].pid, parent = look(pid).parent;
  static const int kDeaths[] = {SIGKILL, SIGTERM, SIGUSR1};
  if (pick(3) == 0 ? !tell(slot, kKill, kDeaths[pick(3)]) : !tell(slot, kEnd, pick(256))) return;
  const unsigned waiter = slot_of(parent);
  if (waiter != 0 && pick(4) != 0) tell(waiter, kWait, pid);
}

static void grow(unsigned first) {
  for (unsigned steps = 5 + pick(50); steps > 0; steps--) {
    const unsigned slot = first + pick(used - first);
    const unsigned other = first + pick(used - first);
    long flags = 0;
    switch (pick(15)) {
      case 0:
      case 1:
      case 2:
      case 3:
      case 4:
        if (pick(6) == 0) flags |= CLONE_FILES;
        if (pick(6) == 0) flags |= CLONE_FS;
        if (pick(6) == 0 && slot != first) flags |= CLONE_PARENT;
        slots[used] = (struct slot){0};
        if (used + 1 < kSlots && tell(slot, kFork, ((long)used << 32) | flags)) used++;
        break;
      case 5:
      case 6:
        tell(slot, kSetsid, 0);
        break;
      case 7:
        tell(slot, kSetpgid, 0);
        break;
      case 8:
        tell(slot, kSetpgid, look(slots[other].pid).group);
        break;
      case 9:
        if (slot != first) tell(slot, kReaper, pick(2));
        break;
      case 10:
      case 11:
      case 12:
        if (slot != first) end(slot);
        break;
      case 13:
        slots[slot].has_threads = tell(slot, kThread, 0) || slots[slot].has_threads;
        break;
      case 14:
        // A thread with tables of its own is not saved.
        if (pick(3) == 0 && !slots[slot].has_threads)
          tell(slot, kUnshare, pick(2) == 0 ? CLONE_FILES : CLONE_FS);
        else if (pick(3) == 0 && slot != first)
          tell(slot, kStop, pick(2) == 0 ? SIGSTOP : SIGTSTP);
        break;
    }
  }
}

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  random_state = strtoull(argv[2], NULL, 10) * 0x9e3779b97f4a7c15u + 1;
  // A leader that ends sends SIGHUP to whoever is stopped in an orphaned group.
  signal(SIGHUP, SIG_IGN);
  if (atoi(argv[4]) != 0) {
    // As daemons begin: in a session whose leader is gone.
    if (fork() != 0) _exit(0);
    if (setsid() < 0) return 3;
    const pid_t leader = getpid();
    if (fork() != 0) _exit(0);
    while (getppid() == leader) sched_yield();
  }
  slots = mmap(NULL, kSlots * sizeof *slots, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (slots == MAP_FAILED) return 3;
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  used = 1;
  for (int tree = atoi(argv[3]); tree > 0; tree--) {
    const unsigned first = used++;
    slots[first] = (struct slot){0};
    const pid_t pid = fork();
    if (pid == 0) serve(first);
    slots[first].pid = pid;
    tell(first, kReaper, pick(4) != 0);
    grow(first);
  }
  char text[32], name[PATH_MAX];
  snprintf(text, sizeof text, "%d\n", getpid());
  snprintf(name, sizeof name, "%s.new", argv[1]);
  const int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd < 0 || write(fd, text, strlen(text)) < 0 || close(fd) != 0 || rename(name, argv[1]) != 0) return 3;
  wait_for_ever(NULL);
}
