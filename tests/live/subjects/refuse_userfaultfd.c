// An area that is registered with a userfaultfd: who answers its faults is not part of an image.
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "subject.h"

int main(int argc, char** argv) {
  subject_start(argc, argv);
  int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
  struct uffdio_api api = {.api = UFFD_API};
  if (fd < 0 || ioctl(fd, UFFDIO_API, &api) != 0) subject_skip("no userfaultfd");
  char* area = mmap(NULL, 4 * kPageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  struct uffdio_register wanted = {.range = {(uintptr_t)area, 4 * kPageBytes}, .mode = UFFDIO_REGISTER_MODE_MISSING};
  REQUIRE(area != MAP_FAILED);
  fill_page(area, 1);
  REQUIRE(ioctl(fd, UFFDIO_REGISTER, &wanted) == 0);
  for (subject_ready(); subject_next(); subject_verdict()) CHECK(page_holds(area, 1), "content");
  return subject_status();
}
