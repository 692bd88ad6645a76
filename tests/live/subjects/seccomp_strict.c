// Strict mode: a child that may only read, write, return from signals and exit, and does so. Its pipes are all it has.
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "subject.h"

static int to_child[2], from_child[2];

static void serve(void) {
  REQUIRE(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) == 0);
  unsigned char sum = 0, byte;
  while (read(to_child[0], &byte, 1) == 1) {
    sum = (unsigned char)(sum + byte);
    if (write(from_child[1], &sum, 1) != 1) break;
  }
  syscall(SYS_exit, 0);
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  REQUIRE(pipe(to_child) == 0 && pipe(from_child) == 0);
  pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    close(to_child[1]);
    close(from_child[0]);
    serve();
  }
  close(to_child[0]);
  close(from_child[1]);
  char path[64], text[4096];
  snprintf(path, sizeof path, "/proc/%d/status", child);
  REQUIRE(WAIT_UNTIL(subject_read_file(path, text, sizeof text) > 0 && strstr(text, "\nSeccomp:\t1\n") != NULL));
  unsigned char sum = 0;
  for (subject_ready(); subject_next(); subject_verdict()) {
    for (unsigned char byte = 1; byte < 5; byte++) {
      unsigned char answer = 0;
      sum = (unsigned char)(sum + byte);
      CHECK(write(to_child[1], &byte, 1) == 1 && read(from_child[0], &answer, 1) == 1 && answer == sum,
            "the child answers %d, not %d", answer, sum);
    }
    CHECK(subject_read_file(path, text, sizeof text) > 0 && strstr(text, "\nSeccomp:\t1\n") != NULL,
          "the child is not in strict mode");
    if (subject_last) close(to_child[1]);
    subject_join(child);
  }
  return subject_status();
}
