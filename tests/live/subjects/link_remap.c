// Files whose name is gone while another is left: two descriptions and a mapping of one, a symbolic link, and one whose
// old name was taken by another file.
#include <sys/mman.h>

#include "subject.h"

static int two_names(const char* gone, const char* kept, int flags) {
  int fd = open(subject_path(gone), O_RDWR | O_CREAT | O_EXCL, 0640);
  REQUIRE(fd >= 0 && write(fd, gone, strlen(gone)) == (ssize_t)strlen(gone) && ftruncate(fd, kPageBytes) == 0);
  close(fd);
  REQUIRE(link(subject_path(gone), subject_path(kept)) == 0);
  REQUIRE((fd = open(subject_path(gone), flags)) >= 0 && unlink(subject_path(gone)) == 0);
  return fd;
}

static void check_names(int fd, const char* kept) {
  struct stat st, other;
  CHECK(fstat(fd, &st) == 0 && stat(subject_path(kept), &other) == 0, "%s", kept);
  CHECK(st.st_ino == other.st_ino && st.st_dev == other.st_dev, "%s leads to another inode", kept);
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  int fd = two_names("gone", "kept", O_RDWR);
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  int separate = open(path, O_RDONLY);
  char* area = mmap(NULL, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  REQUIRE(separate >= 0 && area != MAP_FAILED && lseek(separate, 2, SEEK_SET) == 2);
  int taken = two_names("taken", "kept2", O_RDONLY | O_NOFOLLOW);
  int other = open(subject_path("taken"), O_RDWR | O_CREAT | O_EXCL, 0640);
  struct stat other_st, st;
  REQUIRE(other >= 0 && write(other, "another", 7) == 7 && fstat(other, &other_st) == 0);
  close(other);
  REQUIRE(symlink("nowhere", subject_path("link")) == 0 && link(subject_path("link"), subject_path("link2")) == 0);
  int symbolic = open(subject_path("link"), O_PATH | O_NOFOLLOW);
  REQUIRE(symbolic >= 0 && unlink(subject_path("link")) == 0);

  for (subject_ready(); subject_next(); subject_verdict()) {
    check_names(fd, "kept");
    check_names(separate, "kept");
    check_names(taken, "kept2");
    char text[8] = "";
    CHECK(pread(fd, text, 4, 0) == 4 && memcmp(text, "gone", 4) == 0 && lseek(separate, 0, SEEK_CUR) == 2, "reads %s", text);
    area[100]++;
    char byte = 0;
    CHECK(pread(separate, &byte, 1, 100) == 1 && byte == area[100], "mapping and descriptor are two files");
    area[100]--;
    CHECK(pread(taken, text, 5, 0) == 5 && memcmp(text, "taken", 5) == 0, "reads %s", text);
    CHECK(stat(subject_path("taken"), &st) == 0 && st.st_ino == other_st.st_ino && st.st_size == 7, "the other file was touched");
    CHECK(readlinkat(symbolic, "", text, sizeof text) == 7 && memcmp(text, "nowhere", 7) == 0, "target");
  }
  return subject_status();
}
