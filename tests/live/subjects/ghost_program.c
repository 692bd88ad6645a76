// A program whose file was deleted, as an update does: executable and data segment are mappings of it.
#include "subject.h"

static void run_from_copy(char** argv) {
  int from = open("/proc/self/exe", O_RDONLY);
  int fd = open(subject_path("program"), O_WRONLY | O_CREAT | O_EXCL, 0755);
  REQUIRE(from >= 0 && fd >= 0);
  char bytes[65536];
  ssize_t n;
  while ((n = read(from, bytes, sizeof bytes)) > 0) REQUIRE(write(fd, bytes, (size_t)n) == n);
  close(from);
  close(fd);
  REQUIRE(setenv("FROM_COPY", "1", 1) == 0);
  execv(subject_path("program"), argv);
  die("execv");
}

static volatile int counter = 7;  // in the data segment: a private mapping of the file
static volatile int untouched[4096] = {1};

int main(int argc, char** argv) {
  subject_start(argc, argv);
  if (getenv("FROM_COPY") == NULL) run_from_copy(argv);
  REQUIRE(unlink(subject_path("program")) == 0);
  char wanted[PATH_MAX + 16];
  snprintf(wanted, sizeof wanted, "%s (deleted)", subject_path("program"));
  for (subject_ready(); subject_next(); subject_verdict()) {
    char link[PATH_MAX + 16] = "";
    CHECK(readlink("/proc/self/exe", link, sizeof link - 1) > 0 && strcmp(link, wanted) == 0, "%.200s", link);
    CHECK(counter++ == 7 + subject_generation - 1 && untouched[0] == 1 && untouched[4095] == 0, "counter");
    struct stat exe;
    CHECK(stat("/proc/self/exe", &exe) == 0 && exe.st_nlink == 0 && exe.st_mode == (S_IFREG | 0755), "mode %o", exe.st_mode);
    int fd = open("/proc/self/exe", O_WRONLY | O_CLOEXEC);
    CHECK(fd == -1 && errno == ETXTBSY, "a running program can be written to");
    // A child of it runs the same file.
    pid_t child = fork();
    if (child == 0) _exit(counter > 7 ? 5 : 6);
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 5, "the child ended with %#x", (unsigned)status);
  }
  return subject_status();
}
