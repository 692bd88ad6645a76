// Threads with a descriptor table or working directory, root and umask of their own: one with its own descriptors, one
// with its own directories, one with both, and a fourth that shares all with the third.
#include <linux/kcmp.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>

#include "subject.h"

enum { kFiles, kDirectories, kBoth, kHeir, kThreads };
enum { kIdle, kOpen, kClose, kUmask, kIsOpen, kIsHere, kIsCloexec };
struct order {
  int what, argument, result;
  char* directory;
};
static struct order orders[kThreads];
static pid_t tids[kThreads];
static pthread_t heir;

static int obey(const struct order* order) {
  char here[PATH_MAX];
  switch (order->what) {
    case kOpen:
      return open("/dev/null", O_RDONLY);
    case kClose:
      return close(order->argument);
    case kUmask:
      return (int)umask((mode_t)order->argument);
    case kIsOpen:
      return fcntl(order->argument, F_GETFD) >= 0;
    case kIsCloexec:
      return fcntl(order->argument, F_GETFD) == FD_CLOEXEC;
    case kIsHere:
      return getcwd(here, sizeof here) != NULL && strcmp(here, order->directory) == 0;
  }
  return -1;
}

static void serve(int index) {
  struct order* order = &orders[index];
  __atomic_store_n(&tids[index], (pid_t)syscall(SYS_gettid), __ATOMIC_RELEASE);
  for (;; sleep_ms(1)) {
    if (__atomic_load_n(&order->what, __ATOMIC_ACQUIRE) == kIdle) continue;
    order->result = obey(order);
    __atomic_store_n(&order->what, kIdle, __ATOMIC_RELEASE);
  }
}

static void* serve_as_heir(void* unused) {
  serve(kHeir);
  return unused;
}

static void* run(void* argument) {
  const int index = (int)(intptr_t)argument;
  if (index == kFiles || index == kBoth) {
    REQUIRE(unshare(CLONE_FILES) == 0);
    REQUIRE(dup3(open("/dev/null", O_RDONLY), 100 + index, O_CLOEXEC) == 100 + index);
    for (int i = 0; i < 400 && index == kBoth; i++) REQUIRE(dup2(100 + index, 200 + i) >= 0);
    REQUIRE(close(open("/dev/zero", O_RDONLY)) == 0);
    REQUIRE(close(50) == 0);
  }
  if (index == kDirectories || index == kBoth) {
    REQUIRE(unshare(CLONE_FS) == 0);
    REQUIRE(chdir(index == kBoth ? "/usr" : "/tmp") == 0);
    umask(index == kBoth ? 007 : 070);
  }
  if (index == kBoth) REQUIRE(pthread_create(&heir, NULL, serve_as_heir, NULL) == 0);
  serve(index);
  return NULL;
}

static int tell(int thread, int what, int argument) {
  struct order* order = &orders[thread];
  order->argument = argument;
  __atomic_store_n(&order->what, what, __ATOMIC_RELEASE);
  CHECK(WAIT_UNTIL(__atomic_load_n(&order->what, __ATOMIC_ACQUIRE) == kIdle), "thread %d does not answer", thread);
  return order->result;
}

static int is_in(int thread, char* directory) {
  orders[thread].directory = directory;
  return tell(thread, kIsHere, 0);
}

static bool same(pid_t a, pid_t b, int kind) {
  return syscall(SYS_kcmp, a, b, kind, 0, 0) == 0;
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  REQUIRE(chdir("/") == 0);
  umask(022);
  REQUIRE(dup2(open("/dev/zero", O_RDONLY), 50) == 50);
  for (int i = 0; i < kThreads; i++) {
    pthread_t thread;
    if (i != kHeir) REQUIRE(pthread_create(&thread, NULL, run, (void*)(intptr_t)i) == 0);
    REQUIRE(WAIT_UNTIL(__atomic_load_n(&tids[i], __ATOMIC_ACQUIRE) != 0));
  }
  const pid_t self = getpid();
  for (subject_ready(); subject_next(); subject_verdict()) {
    for (int i = 0; i < kThreads; i++) {
      CHECK(same(self, tids[i], KCMP_FILES) == (i == kDirectories), "descriptor table of thread %d", i);
      CHECK(same(self, tids[i], KCMP_FS) == (i == kFiles), "directories of thread %d", i);
    }
    CHECK(same(tids[kBoth], tids[kHeir], KCMP_FILES) && same(tids[kBoth], tids[kHeir], KCMP_FS), "what the heir has");
    CHECK(!same(tids[kBoth], tids[kFiles], KCMP_FILES) && !same(tids[kBoth], tids[kDirectories], KCMP_FS), "strangers");
    CHECK(fcntl(50, F_GETFD) == 0 && tell(kDirectories, kIsOpen, 50) && !tell(kFiles, kIsOpen, 50) &&
              !tell(kHeir, kIsOpen, 50),
          "descriptor 50");
    CHECK(tell(kFiles, kIsCloexec, 100 + kFiles) && tell(kHeir, kIsCloexec, 100 + kBoth), "their own descriptors");
    CHECK(tell(kBoth, kIsOpen, 599) && !tell(kFiles, kIsOpen, 599) && fcntl(599, F_GETFD) < 0, "descriptor 599");
    CHECK(fcntl(100 + kFiles, F_GETFD) < 0 && fcntl(100 + kBoth, F_GETFD) < 0, "their own descriptors are here");
    CHECK(is_in(kFiles, "/") && is_in(kDirectories, "/tmp") && is_in(kBoth, "/usr") && is_in(kHeir, "/usr"), "places");
    CHECK(tell(kFiles, kUmask, 022) == 022 && tell(kDirectories, kUmask, 070) == 070 && tell(kBoth, kUmask, 001) == 007,
          "umasks");
    CHECK(tell(kHeir, kUmask, 007) == 001 && umask(022) == 022, "umask of the heir");
    const int fd = tell(kHeir, kOpen, 0);
    CHECK(fd >= 0 && tell(kBoth, kIsOpen, fd) && tell(kBoth, kClose, fd) == 0 && !tell(kHeir, kIsOpen, fd),
          "what the heir opens");
  }
  return subject_status();
}
