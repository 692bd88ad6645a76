// Memory that was writable once: when its protection becomes that of its neighbours again they are one mapping, as the
// kernel's limit of mappings and mremap() need it.
#include <sys/mman.h>

#include "subject.h"

enum { kPages = 200 };

static int mappings_in(const char* area, size_t bytes) {
  FILE* maps = fopen("/proc/self/maps", "re");
  char line[512];
  int count = 0;
  while (fgets(line, sizeof line, maps) != NULL) {
    unsigned long start, end;
    if (sscanf(line, "%lx-%lx ", &start, &end) == 2 && end > (uintptr_t)area && start < (uintptr_t)area + bytes) count++;
  }
  fclose(maps);
  return count;
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  mmap(NULL, kPageBytes, PROT_NONE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);  // nothing merges with the whole
  char* area = mmap(NULL, kPages * kPageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  mmap(NULL, kPageBytes, PROT_NONE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  REQUIRE(area != MAP_FAILED && madvise(area, kPages * kPageBytes, MADV_NOHUGEPAGE) == 0);
  for (size_t i = 0; i < kPages; i += 4) fill_page(area + i * kPageBytes, i);
  for (subject_ready(); subject_next(); subject_verdict()) {
    if (subject_generation > 1) {
      REQUIRE(mprotect(area, kPages * kPageBytes, PROT_READ | PROT_WRITE) == 0);
      CHECK(mappings_in(area, kPages * kPageBytes) == 1, "%d mappings with the same protection",
            mappings_in(area, kPages * kPageBytes));
    }
    for (size_t i = 0; i < kPages; i += 4)
      CHECK(page_holds(area + i * kPageBytes, i) && page_is_zero(area + (i + 2) * kPageBytes), "page %zu", i);
    // For the next checkpoint: pieces without any page, and with one.
    for (size_t i = 0; i < kPages; i += 2) {
      static const int protections[] = {PROT_NONE, PROT_READ};
      REQUIRE(mprotect(area + (i + 1) * kPageBytes, kPageBytes, protections[i % 4 / 2]) == 0);
      if (i % 8 == 0) REQUIRE(mprotect(area + i * kPageBytes, kPageBytes, PROT_READ) == 0);
    }
  }
  return subject_status();
}
