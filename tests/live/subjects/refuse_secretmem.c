// Memory of memfd_secret(), which not even the kernel reads for others.
#include <sys/mman.h>
#include <sys/syscall.h>

#include "subject.h"

#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447
#endif

int main(int argc, char** argv) {
  subject_start(argc, argv);
  int fd = (int)syscall(SYS_memfd_secret, O_CLOEXEC);
  if (fd < 0) subject_skip("memfd_secret() is not enabled (secretmem.enable)");
  REQUIRE(ftruncate(fd, kPageBytes) == 0);
  char* page = mmap(NULL, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  REQUIRE(page != MAP_FAILED);
  fill_page(page, 1);
  for (subject_ready(); subject_next(); subject_verdict()) CHECK(page_holds(page, 1), "the secret is lost");
  return subject_status();
}
