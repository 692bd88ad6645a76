// Single attributes of a task: parent-death signal, sub-reaper, OOM score, THP switch, timer slack, core dump filter.
#include <signal.h>
#include <sys/prctl.h>

#include "subject.h"

static void write_proc(const char* path, const char* text) {
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  REQUIRE(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
  close(fd);
}
static long read_number(const char* path, int base) {
  char text[64] = "";
  subject_read_file(path, text, sizeof text);
  return strtol(text, NULL, base);
}
static long read_proc(const char* path) {
  return read_number(path, 10);
}
static long read_hexadecimal(const char* path) {
  return read_number(path, 16);
}

static void child_main(void) {
  REQUIRE(prctl(PR_SET_PDEATHSIG, SIGUSR2) == 0);
  subject_write_file("child", "up\n");
  while (subject_next()) {
    int signal_number = 0, reaper = -1;
    CHECK(prctl(PR_GET_PDEATHSIG, &signal_number) == 0 && signal_number == SIGUSR2, "parent-death signal %d",
          signal_number);
    CHECK(prctl(PR_GET_CHILD_SUBREAPER, &reaper) == 0 && reaper == 0, "the child is a sub-reaper");
    subject_part("child");
  }
  _exit(subject_status());
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  pid_t child = fork();
  if (child == 0) child_main();
  REQUIRE(child > 0 && WAIT_UNTIL(access(subject_path("child"), F_OK) == 0));
  REQUIRE(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0 && prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0);
  REQUIRE(prctl(PR_SET_TIMERSLACK, 123456) == 0);
  write_proc("/proc/self/oom_score_adj", "321");
  write_proc("/proc/self/coredump_filter", "0x7f");

  for (subject_ready(); subject_next(); subject_verdict()) {
    int reaper = 0, signal_number = -1;
    CHECK(prctl(PR_GET_CHILD_SUBREAPER, &reaper) == 0 && reaper == 1, "no longer a sub-reaper");
    CHECK(prctl(PR_GET_PDEATHSIG, &signal_number) == 0 && signal_number == 0, "a parent-death signal appeared");
    CHECK(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) == 1, "huge pages are no longer disabled");
    CHECK(prctl(PR_GET_TIMERSLACK) == 123456, "timer slack %d", prctl(PR_GET_TIMERSLACK));
    CHECK(read_proc("/proc/self/oom_score_adj") == 321, "oom_score_adj");
    CHECK(read_hexadecimal("/proc/self/coredump_filter") == 0x7f, "coredump_filter");
    subject_collect("child");
    subject_join(child);
  }
  return subject_status();
}
