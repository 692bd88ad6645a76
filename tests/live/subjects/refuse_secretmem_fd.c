// A memfd_secret() that is not mapped: nobody but the kernel can read it, and it has no read() either.
#include <sys/mman.h>
#include <sys/syscall.h>

#include "subject.h"

#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447
#endif

int main(int argc, char** argv) {
  subject_start(argc, argv);
  int fd = (int)syscall(SYS_memfd_secret, 0);
  if (fd < 0) subject_skip("memfd_secret()");
  REQUIRE(ftruncate(fd, kPageBytes) == 0);
  char* area = mmap(NULL, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  REQUIRE(area != MAP_FAILED);
  strcpy(area, "secret");
  REQUIRE(munmap(area, kPageBytes) == 0);
  for (subject_ready(); subject_next(); subject_verdict()) {
    area = mmap(NULL, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(area != MAP_FAILED && strcmp(area, "secret") == 0, "the memory is lost");
    if (area != MAP_FAILED) munmap(area, kPageBytes);
  }
  return subject_status();
}
