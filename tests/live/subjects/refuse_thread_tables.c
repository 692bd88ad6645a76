// Two threads that share a descriptor table with each other and not with their leader, and have directories of their
// own each: no order of births leads there.
#include <pthread.h>
#include <sched.h>

#include "subject.h"

static pthread_t second;
static int ready;

static void* unshare_directories(void* unused) {
  REQUIRE(unshare(CLONE_FS) == 0);
  __atomic_add_fetch(&ready, 1, __ATOMIC_RELEASE);
  for (;;) pause();
  return unused;
}

static void* unshare_both(void* unused) {
  REQUIRE(unshare(CLONE_FILES) == 0);
  REQUIRE(pthread_create(&second, NULL, unshare_directories, NULL) == 0);
  return unshare_directories(unused);
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  pthread_t first;
  REQUIRE(pthread_create(&first, NULL, unshare_both, NULL) == 0);
  REQUIRE(WAIT_UNTIL(__atomic_load_n(&ready, __ATOMIC_ACQUIRE) == 2));
  for (subject_ready(); subject_next(); subject_verdict()) CHECK(pthread_kill(second, 0) == 0, "a thread is gone");
  return subject_status();
}
