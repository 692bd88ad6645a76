// Shared mappings of files whose descriptors are closed: content goes through to the file, and the mode of the
// closed descriptor still decides whether the mapping may become writable.
#include <sys/mman.h>

#include "subject.h"

enum { kPages = 8 };

static char* map_shared(const char* name, int open_flags, int protection, off_t offset) {
  int fd = open(subject_path(name), open_flags | O_CREAT, 0644);
  REQUIRE(fd >= 0);
  if ((open_flags & O_ACCMODE) != O_RDONLY) REQUIRE(ftruncate(fd, kPages * kPageBytes) == 0);
  char* area = mmap(NULL, (size_t)(kPages * kPageBytes - offset), protection, MAP_SHARED, fd, offset);
  REQUIRE(area != MAP_FAILED);
  close(fd);
  return area;
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  char* written = map_shared("shared", O_RDWR, PROT_READ | PROT_WRITE, 0);
  char* second = map_shared("shared", O_RDWR, PROT_READ | PROT_WRITE, 4 * kPageBytes);
  char* later_writable = map_shared("shared", O_RDWR, PROT_READ, 0);
  char* never_writable = map_shared("shared", O_RDONLY, PROT_READ, 0);
  for (size_t i = 0; i < kPages; i++) fill_page(written + i * kPageBytes, i);

  for (subject_ready(); subject_next(); subject_verdict()) {
    for (size_t i = 0; i < kPages; i++) CHECK(page_holds(written + i * kPageBytes, i), "page %zu", i);
    written[5 * kPageBytes] ^= 1;
    CHECK(second[kPageBytes] == written[5 * kPageBytes], "two mappings of one file differ");
    int fd = open(subject_path("shared"), O_RDONLY);
    char byte = 0;
    CHECK(pread(fd, &byte, 1, 5 * kPageBytes) == 1 && byte == second[kPageBytes], "the file does not see the write");
    close(fd);
    second[kPageBytes] ^= 1;
    CHECK(mprotect(later_writable, kPageBytes, PROT_READ | PROT_WRITE) == 0, "cannot be made writable");
    later_writable[7] ^= 1;
    CHECK(later_writable[7] == written[7], "the raised mapping is another object");
    later_writable[7] ^= 1;
    CHECK(mprotect(later_writable, kPageBytes, PROT_READ) == 0, "cannot be made read-only again");
    CHECK(mprotect(never_writable, kPageBytes, PROT_READ | PROT_WRITE) == -1 && errno == EACCES,
          "a read-only open became a writable mapping");
  }
  return subject_status();
}
