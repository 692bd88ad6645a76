// Files below /proc: of this process, of a child, of the first process; of a child that is dead, also its
// directory.
#include <signal.h>

#include "subject.h"

static char dead_name[64];

static int open_of(pid_t pid, const char* name, int flags) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
  int fd = open(path, flags);
  if (fd < 0) die("cannot open %s", path);
  return fd;
}

static void check_stat(int fd, pid_t pid) {
  char text[64] = "";
  CHECK(pread(fd, text, sizeof text - 1, 0) > 0 && atoi(text) == pid, "the process %d reads %s", (int)pid, text);
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    while (subject_next()) subject_part("child");
    return subject_status();
  }
  pid_t dead = fork();
  REQUIRE(dead >= 0);
  if (dead == 0) {
    pause();
    _exit(0);
  }
  int own = open("/proc/self/stat", O_RDONLY), own_directory = open("/proc/self", O_RDONLY | O_DIRECTORY);
  int first = open_of(1, "stat", O_RDONLY | O_CLOEXEC), childs = open_of(child, "stat", O_RDONLY);
  int of_system = open("/proc/uptime", O_RDONLY);
  int dead_stat = open_of(dead, "stat", O_RDONLY | O_NONBLOCK), dead_directory = open_of(dead, "", O_RDONLY | O_DIRECTORY);
  int dead_exe = open_of(dead, "exe", O_PATH | O_NOFOLLOW);
  snprintf(dead_name, sizeof dead_name, "/proc/%d (deleted)", (int)dead);
  REQUIRE(own >= 0 && own_directory >= 0 && of_system >= 0);
  REQUIRE(kill(dead, SIGKILL) == 0 && waitpid(dead, NULL, 0) == dead);

  for (subject_ready(); subject_next(); subject_verdict()) {
    subject_collect("child");
    check_stat(own, getpid());
    check_stat(first, 1);
    if (!subject_last) check_stat(childs, child);
    char text[PATH_MAX] = "";
    CHECK(pread(of_system, text, 8, 0) > 0, "/proc/uptime");
    int again = openat(own_directory, "stat", O_RDONLY | O_CLOEXEC);
    check_stat(again, getpid());
    close(again);
    CHECK(pread(dead_stat, text, 8, 0) == -1 && errno == ESRCH, "a dead process tells of itself");
    CHECK((fcntl(dead_stat, F_GETFL) & (O_ACCMODE | O_NONBLOCK)) == O_NONBLOCK, "flags");
    CHECK(openat(dead_directory, "stat", O_RDONLY) == -1, "the directory of a dead process has files");
    snprintf(text, sizeof text, "/proc/self/fd/%d", dead_directory);
    char link[PATH_MAX] = "";
    CHECK(readlink(text, link, sizeof link - 1) > 0 && strcmp(link, dead_name) == 0, "%.99s", link);
    struct stat st;
    CHECK(fstat(dead_exe, &st) == 0 && S_ISLNK(st.st_mode), "the link of a dead process");
    CHECK(kill(dead, 0) == -1 && errno == ESRCH, "the dead process lives");
    subject_join(child);
  }
  return subject_status();
}
