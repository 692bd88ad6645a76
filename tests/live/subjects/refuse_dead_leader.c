// A process whose main thread has ended; another one goes on.
#include <pthread.h>

#include "subject.h"

static void* live_on(void* unused) {
  for (subject_ready(); subject_next(); subject_verdict()) CHECK(true, "it goes on");
  exit(subject_status());
  return unused;
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  pthread_t thread;
  REQUIRE(pthread_create(&thread, NULL, live_on, NULL) == 0);
  pthread_exit(NULL);
}
