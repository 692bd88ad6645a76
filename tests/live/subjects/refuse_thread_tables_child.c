// A thread shares its descriptor table with a child process, but not with its own leader.
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>

#include "subject.h"

static pid_t child;

static void* have_child(void* unused) {
  REQUIRE(unshare(CLONE_FILES) == 0);
  const pid_t pid = (pid_t)syscall(SYS_clone, (long)(CLONE_FILES | SIGCHLD), NULL, NULL, NULL, NULL);
  REQUIRE(pid >= 0);
  while (pid == 0) pause();
  __atomic_store_n(&child, pid, __ATOMIC_RELEASE);
  for (;;) pause();
  return unused;
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  pthread_t thread;
  REQUIRE(pthread_create(&thread, NULL, have_child, NULL) == 0);
  REQUIRE(WAIT_UNTIL(__atomic_load_n(&child, __ATOMIC_ACQUIRE) != 0));
  for (subject_ready(); subject_next(); subject_verdict()) CHECK(kill(child, 0) == 0, "the child is gone");
  kill(child, SIGKILL);
  REQUIRE(waitpid(child, NULL, 0) == child);
  return subject_status();
}
