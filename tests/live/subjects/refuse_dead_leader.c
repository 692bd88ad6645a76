// A process whose main thread has ended, and had other credentials than the thread that goes on.
#include <pthread.h>
#include <sys/syscall.h>

#include "subject.h"

static void* live_on(void* unused) {
  char path[64], text[512];
  snprintf(path, sizeof path, "/proc/%d/task/%d/stat", getpid(), getpid());
  REQUIRE(WAIT_UNTIL(subject_read_file(path, text, sizeof text) > 0 && strstr(text, ") Z ") != NULL));
  for (subject_ready(); subject_next(); subject_verdict()) CHECK(geteuid() == 0, "it is user %d", geteuid());
  exit(subject_status());
  return unused;
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  pthread_t thread;
  REQUIRE(pthread_create(&thread, NULL, live_on, NULL) == 0);
  // Of this thread alone.
  REQUIRE(syscall(SYS_setresgid, 1, 1, 1) == 0);
  syscall(SYS_exit, 0);
}
