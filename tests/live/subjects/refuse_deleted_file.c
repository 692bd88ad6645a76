// Files without a name: one open for writing, one mapped, one that is the working directory.
#include <sys/mman.h>

#include "subject.h"

int main(int argc, char** argv) {
  subject_start(argc, argv);
  int fd = open(subject_path("gone"), O_RDWR | O_CREAT, 0600);
  REQUIRE(fd >= 0 && write(fd, "content", 7) == 7 && ftruncate(fd, kPageBytes) == 0 && lseek(fd, 3, SEEK_SET) == 3);
  char* area = mmap(NULL, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  REQUIRE(area != MAP_FAILED && unlink(subject_path("gone")) == 0);
  REQUIRE(mkdir(subject_path("directory"), 0700) == 0 && chdir(subject_path("directory")) == 0);
  REQUIRE(rmdir(subject_path("directory")) == 0);
  for (subject_ready(); subject_next(); subject_verdict()) {
    struct stat info;
    char text[8] = "";
    CHECK(fstat(fd, &info) == 0 && info.st_nlink == 0, "%lu names", (unsigned long)info.st_nlink);
    CHECK(lseek(fd, 0, SEEK_CUR) == 3 && pread(fd, text, 7, 0) == 7 && memcmp(text, "content", 7) == 0, "content");
    area[100]++;
    char byte = 0;
    CHECK(pread(fd, &byte, 1, 100) == 1 && byte == area[100], "mapping and descriptor are two files");
    char directory[PATH_MAX];
    CHECK(getcwd(directory, sizeof directory) == NULL && errno == ENOENT, "the removed directory has a name");
  }
  return subject_status();
}
