// A program that runs from a copy of itself in the subject's directory: the link to it, its mappings, and reading it.
#include <elf.h>

#include "subject.h"

static void copy_file(const char* from, const char* to) {
  int in = open(from, O_RDONLY | O_CLOEXEC), out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
  REQUIRE(in >= 0 && out >= 0);
  char block[65536];
  for (ssize_t got; (got = read(in, block, sizeof block)) > 0;) REQUIRE(write(out, block, (size_t)got) == got);
  close(in);
  close(out);
}

static const char kMarker[] = "text in the read-only data of the program";

int main(int argc, char** argv) {
  subject_start(argc, argv);
  if (argc == 2) {
    copy_file("/proc/self/exe", subject_path("copy"));
    execl(subject_path("copy"), "copy", argv[1], "second", (char*)NULL);
    die("exec of the copy");
  }
  int self = open("/proc/self/exe", O_RDONLY);
  REQUIRE(self >= 0 && lseek(self, 16, SEEK_SET) == 16);  // a position that reading a build id must not move

  for (subject_ready(); subject_next(); subject_verdict()) {
    char link[PATH_MAX] = "";
    CHECK(readlink("/proc/self/exe", link, sizeof link - 1) > 0 && strcmp(link, subject_path("copy")) == 0, "exe is %s",
          link);
    char magic[SELFMAG];
    CHECK(pread(self, magic, SELFMAG, 0) == SELFMAG && memcmp(magic, ELFMAG, SELFMAG) == 0, "content of the program");
    CHECK(lseek(self, 0, SEEK_CUR) == 16, "the position in the program moved to %ld", (long)lseek(self, 0, SEEK_CUR));
    int fd = open(link, O_WRONLY);
    CHECK(fd == -1 && errno == ETXTBSY, "the running program may be written to");
    if (fd >= 0) close(fd);
    CHECK(strlen(kMarker) == 41, "read-only data");
  }
  return subject_status();
}
