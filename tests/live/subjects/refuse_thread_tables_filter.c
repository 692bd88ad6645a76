// A thread that has a descriptor table of its own, and a seccomp filter that its leader has not.
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>

#include "subject.h"

static int ready;

static void* stand_apart(void* unused) {
  struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  const struct sock_fprog program = {.len = 1, .filter = &allow};
  REQUIRE(unshare(CLONE_FILES) == 0);
  REQUIRE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
  REQUIRE(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0);
  __atomic_store_n(&ready, 1, __ATOMIC_RELEASE);
  for (;;) pause();
  return unused;
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  pthread_t thread;
  REQUIRE(pthread_create(&thread, NULL, stand_apart, NULL) == 0);
  REQUIRE(WAIT_UNTIL(__atomic_load_n(&ready, __ATOMIC_ACQUIRE) == 1));
  for (subject_ready(); subject_next(); subject_verdict()) CHECK(pthread_kill(thread, 0) == 0, "the thread is gone");
  return subject_status();
}
