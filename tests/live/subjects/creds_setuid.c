// A program that is set-uid to one user and started by another: its effective and saved ids are the file's, it is not
// dumpable, and the user who started it may not even look at it.
#include <signal.h>
#include <sys/prctl.h>

#include "subject.h"

enum { kCaller = 1001, kOwner = 1002 };

static void copy_program(const char* to) {
  int from_fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), to_fd = open(to, O_WRONLY | O_CREAT | O_CLOEXEC, 0700);
  char bytes[65536];
  ssize_t n;
  REQUIRE(from_fd >= 0 && to_fd >= 0);
  while ((n = read(from_fd, bytes, sizeof bytes)) > 0) REQUIRE(write(to_fd, bytes, (size_t)n) == n);
  REQUIRE(fchown(to_fd, kOwner, kOwner) == 0 && fchmod(to_fd, 06755) == 0);
  close(from_fd);
  close(to_fd);
}

static void serve(void) {
  uid_t real, effective, saved;
  gid_t real_group, effective_group, saved_group;
  const int dumpable = prctl(PR_GET_DUMPABLE);
  REQUIRE(dumpable != 1);
  subject_write_file("child", "up\n");
  while (subject_next()) {
    CHECK(getresuid(&real, &effective, &saved) == 0 && real == kCaller && effective == kOwner && saved == kOwner,
          "uids %u %u %u", real, effective, saved);
    CHECK(getresgid(&real_group, &effective_group, &saved_group) == 0 && real_group == kCaller &&
              effective_group == kOwner && saved_group == kOwner,
          "gids %u %u %u", real_group, effective_group, saved_group);
    CHECK(prctl(PR_GET_DUMPABLE) == dumpable, "dumpable is %d, was %d", prctl(PR_GET_DUMPABLE), dumpable);
    subject_part("child");
  }
  _exit(subject_status());
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  if (argc > 2) serve();
  if (geteuid() != 0) subject_skip("root's privileges");
  REQUIRE(chmod(subject_dir, 0777) == 0);
  const char* program = subject_path("program");
  copy_program(program);
  pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    REQUIRE(setresgid(kCaller, kCaller, kCaller) == 0 && setresuid(kCaller, kCaller, kCaller) == 0);
    execl(program, program, subject_dir, "serve", (char*)NULL);
    die("exec");
  }
  if (!WAIT_UNTIL(access(subject_path("child"), F_OK) == 0)) {
    kill(child, SIGKILL);
    subject_skip("a file system with set-uid programs");
  }
  for (subject_ready(); subject_next(); subject_verdict()) {
    subject_collect("child");
    subject_join(child);
  }
  return subject_status();
}
