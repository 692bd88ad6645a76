// A program that runs from a sealed memfd, as container runtimes start themselves: no path leads to its executable.
#include <sys/mman.h>

#include "subject.h"

static void run_from_memfd(char** argv) {
  int from = open("/proc/self/exe", O_RDONLY);
  int fd = memfd_create("cloned", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  REQUIRE(from >= 0 && fd >= 0);
  char bytes[65536];
  ssize_t n;
  while ((n = read(from, bytes, sizeof bytes)) > 0) REQUIRE(write(fd, bytes, (size_t)n) == n);
  REQUIRE(fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) == 0);
  REQUIRE(setenv("FROM_MEMFD", "1", 1) == 0);
  fexecve(fd, argv, environ);
  die("fexecve");
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  if (getenv("FROM_MEMFD") == NULL) run_from_memfd(argv);
  static int counter = 7;  // in the data segment: a private mapping of the memfd
  for (subject_ready(); subject_next(); subject_verdict()) {
    char link[256] = "";
    CHECK(readlink("/proc/self/exe", link, sizeof link - 1) > 0 && strcmp(link, "/memfd:cloned (deleted)") == 0, "%s", link);
    CHECK(counter++ == 7 + subject_generation - 1, "counter");
    int self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    CHECK(self >= 0 && (fcntl(self, F_GET_SEALS) & F_SEAL_WRITE) != 0, "the program is not sealed any more");
    close(self);
  }
  return subject_status();
}
