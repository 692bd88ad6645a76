// MAP_DROPPABLE: content that the kernel may drop at any time; after a restore it is gone, the area and its flags are not.
// Also the private areas that are droppable by children only, and no-reserve areas.
#include <sys/mman.h>

#include "subject.h"

#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08  // Linux 6.11
#endif

int main(int argc, char** argv) {
  subject_start(argc, argv);
  char* area = mmap(NULL, 4 * kPageBytes, PROT_READ | PROT_WRITE, MAP_DROPPABLE | MAP_ANONYMOUS, -1, 0);
  if (area == MAP_FAILED) subject_skip("no MAP_DROPPABLE before Linux 6.11");
  fill_page(area, 1);
  pid_t child = fork();  // finds it wiped
  if (child == 0) {
    REQUIRE(page_is_zero(area));
    subject_write_file("child", "up\n");
    while (subject_next()) {
      CHECK(page_is_zero(area), "the child's copy is not zero any more");
      subject_part("child");
    }
    _exit(subject_status());
  }
  REQUIRE(child > 0 && WAIT_UNTIL(access(subject_path("child"), F_OK) == 0));
  char* unreserved = mmap(NULL, 1ul << 36, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  REQUIRE(unreserved != MAP_FAILED);
  fill_page(unreserved + kPageBytes, 2);
  for (subject_ready(); subject_next(); subject_verdict()) {
    CHECK(page_holds(area, 1) || page_is_zero(area), "neither kept nor dropped");
    fill_page(area, 1);
    CHECK(page_holds(unreserved + kPageBytes, 2), "no-reserve area");
    subject_collect("child");
    subject_join(child);
  }
  return subject_status();
}
