// A child in uts, ipc and network namespaces of its own.
#include <sched.h>

#include "subject.h"

int main(int argc, char** argv) {
  subject_start(argc, argv);
  pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    if (unshare(CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET) != 0) {
      subject_write_file("refused", "\n");
      _exit(0);
    }
    REQUIRE(sethostname("inside", 6) == 0);
    subject_write_file("child", "up\n");
    while (subject_next()) {
      char name[65] = "";
      CHECK(gethostname(name, sizeof name) == 0 && strcmp(name, "inside") == 0, "host name %s", name);
      subject_part("child");
    }
    _exit(subject_status());
  }
  REQUIRE(WAIT_UNTIL(access(subject_path("child"), F_OK) == 0 || access(subject_path("refused"), F_OK) == 0));
  if (access(subject_path("refused"), F_OK) == 0) subject_skip("creating namespaces (CAP_SYS_ADMIN)");
  for (subject_ready(); subject_next(); subject_verdict()) {
    char name[65] = "";
    CHECK(gethostname(name, sizeof name) == 0 && strcmp(name, "inside") != 0, "the parent sees the child's host name");
    subject_collect("child");
    subject_join(child);
  }
  return subject_status();
}
