// Processes that share a descriptor table or working directory, root and umask (CLONE_FILES, CLONE_FS): a child with its
// parent, and two children with each other although their parent has tables of its own by now.
#include <linux/kcmp.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "subject.h"

enum { kFilesOfParent, kFsOfParent, kBothOfSibling, kSiblings, kChildren };
enum { kIdle, kOpen, kClose, kUmask };
struct order {
  int what, argument, result;
};
static struct order* orders;  // one for each child
static pid_t children[kChildren];

static void serve(struct order* order) {
  for (;; sleep_ms(1)) {
    const int what = __atomic_load_n(&order->what, __ATOMIC_ACQUIRE);
    if (what == kIdle) continue;
    if (what == kOpen) order->result = open("/dev/null", O_RDONLY);
    if (what == kClose) order->result = close(order->argument);
    if (what == kUmask) order->result = (int)umask((mode_t)order->argument);
    __atomic_store_n(&order->what, kIdle, __ATOMIC_RELEASE);
  }
}

static int tell(int child, int what, int argument) {
  struct order* order = &orders[child];
  order->argument = argument;
  order->result = -1;
  __atomic_store_n(&order->what, what, __ATOMIC_RELEASE);
  CHECK(WAIT_UNTIL(__atomic_load_n(&order->what, __ATOMIC_ACQUIRE) == kIdle), "child %d does not answer", child);
  return order->result;
}

static pid_t start(int child, long flags) {
  const pid_t pid = (pid_t)syscall(SYS_clone, flags | SIGCHLD, NULL, NULL, NULL, NULL);
  REQUIRE(pid >= 0);
  if (pid == 0) serve(&orders[child]);
  return children[child] = pid;
}

static bool same(pid_t a, pid_t b, int kind) {
  return syscall(SYS_kcmp, a, b, kind, 0, 0) == 0;
}

static bool has_descriptor(pid_t pid, int fd) {
  char path[64], target[64];
  snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, fd);
  return readlink(path, target, sizeof target) > 0;
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  orders = mmap(NULL, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  REQUIRE(orders != MAP_FAILED);
  // These two have the first tables of this process, which then gets others.
  start(kBothOfSibling, CLONE_FILES | CLONE_FS);
  start(kSiblings, CLONE_FILES | CLONE_FS);
  REQUIRE(unshare(CLONE_FILES | CLONE_FS) == 0);
  start(kFilesOfParent, CLONE_FILES);
  start(kFsOfParent, CLONE_FS);
  REQUIRE(chdir("/tmp") == 0);
  umask(027);
  const int own = open("/dev/zero", O_RDONLY);
  REQUIRE(own >= 0);
  REQUIRE(tell(kSiblings, kOpen, 0) >= 0);

  for (subject_ready(); subject_next(); subject_verdict()) {
    const pid_t self = getpid();
    CHECK(same(self, children[kFilesOfParent], KCMP_FILES) && !same(self, children[kFilesOfParent], KCMP_FS),
          "sharing of the descriptor table");
    CHECK(same(self, children[kFsOfParent], KCMP_FS) && !same(self, children[kFsOfParent], KCMP_FILES),
          "sharing of the directories");
    for (int kind = KCMP_FILES; kind <= KCMP_FS; kind++)
      CHECK(same(children[kSiblings], children[kBothOfSibling], kind) && !same(self, children[kSiblings], kind),
            "sharing between siblings, kind %d", kind);
    const int fd = tell(kFilesOfParent, kOpen, 0);
    CHECK(fd >= 0 && fcntl(fd, F_GETFD) == 0, "what the child opened is not open here");
    CHECK(!has_descriptor(children[kFsOfParent], fd), "and elsewhere it is");
    CHECK(close(fd) == 0 && tell(kFilesOfParent, kClose, fd) != 0, "what was closed here is open in the child");
    CHECK(tell(kFsOfParent, kUmask, 077) == 027 && umask(027) == 077, "the umask is not shared");
    const int before = tell(kSiblings, kUmask, 055);
    CHECK(tell(kBothOfSibling, kUmask, before) == 055, "the umask of siblings");
    const int theirs = tell(kSiblings, kOpen, 0);
    CHECK(theirs >= 0 && has_descriptor(children[kBothOfSibling], theirs), "the table of siblings");
    CHECK(tell(kBothOfSibling, kClose, theirs) == 0, "the table of siblings");
    if (!subject_last) continue;
    for (int i = 0; i < kChildren; i++) {
      kill(children[i], SIGKILL);
      CHECK(waitpid(children[i], NULL, 0) == children[i], "child %d is no child", i);
    }
  }
  return subject_status();
}
