// As many mappings as the kernel permits: 60,000 areas of one page, every other one with content.
#include <sys/mman.h>

#include "subject.h"

enum { kAreas = 60000 };

int main(int argc, char** argv) {
  subject_start(argc, argv);
  char text[32] = "";
  subject_read_file("/proc/sys/vm/max_map_count", text, sizeof text);
  if (atoi(text) < kAreas + 1000) subject_skip("vm.max_map_count is below 61000");
  char* all = mmap(NULL, (size_t)kAreas * kPageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  REQUIRE(all != MAP_FAILED && madvise(all, (size_t)kAreas * kPageBytes, MADV_NOHUGEPAGE) == 0);
  for (size_t i = 0; i < kAreas; i += 2) {
    fill_page(all + i * kPageBytes, i);
    REQUIRE(mprotect(all + (i + 1) * kPageBytes, kPageBytes, PROT_READ) == 0);
  }
  for (subject_ready(); subject_next(); subject_verdict())
    for (size_t i = 0; i < kAreas; i += 2) {
      CHECK(page_holds(all + i * kPageBytes, i), "area %zu", i);
      if (i % 100 == 0) CHECK(page_is_zero(all + (i + 1) * kPageBytes), "area %zu", i + 1);
    }
  return subject_status();
}
