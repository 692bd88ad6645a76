// Locked memory: mlock, mlock2 on fault, in areas of every state; locked above the limit that the task has now.
#include <sys/mman.h>
#include <sys/resource.h>

#include "subject.h"

enum { kPages = 8 };

static char* map(int prot, int flags) {
  mmap(NULL, kPageBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  char* area = mmap(NULL, kPages * kPageBytes, prot, flags, -1, 0);
  REQUIRE(area != MAP_FAILED);
  return area;
}
static int resident(char* area) {
  int count = 0;
  for (size_t i = 0; i < kPages; i++) count += (pagemap_word(area + i * kPageBytes) >> 63) != 0;
  return count;
}
static bool has_flag(const char* area, const char* flag) {
  FILE* smaps = fopen("/proc/self/smaps", "re");
  char line[512];
  bool here = false, found = false;
  while (fgets(line, sizeof line, smaps) != NULL) {
    unsigned long start, end;
    if (sscanf(line, "%lx-%lx ", &start, &end) == 2) here = start <= (uintptr_t)area && (uintptr_t)area < end;
    if (here && strncmp(line, "VmFlags:", 8) == 0) found = strstr(line, flag) != NULL;
  }
  fclose(smaps);
  return found;
}
// Linux 6.1 has no letters for it.
static bool locked_on_fault(const char* area) {
  return has_flag(area, " lf") || has_flag(area, " ??");
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  const int rw = PROT_READ | PROT_WRITE, own = MAP_PRIVATE | MAP_ANONYMOUS;
  char* plain = map(rw, own);
  REQUIRE(mlock(plain, kPages * kPageBytes) == 0);
  fill_page(plain + kPageBytes, 1);
  char* on_fault = map(rw, own);
  fill_page(on_fault + 2 * kPageBytes, 2);
  REQUIRE(mlock2(on_fault, kPages * kPageBytes, MLOCK_ONFAULT) == 0);
  char* full_on_fault = map(rw, own);
  for (size_t i = 0; i < kPages; i++) fill_page(full_on_fault + i * kPageBytes, 10 + i);
  REQUIRE(mlock2(full_on_fault, kPages * kPageBytes, MLOCK_ONFAULT) == 0);
  char* shared_on_fault = map(rw, MAP_SHARED | MAP_ANONYMOUS);
  fill_page(shared_on_fault, 3);
  REQUIRE(mlock2(shared_on_fault, kPages * kPageBytes, MLOCK_ONFAULT) == 0);
  char* reading = map(PROT_READ, own);
  REQUIRE(mlock(reading, kPages * kPageBytes) == 0);
  char* dropped = map(rw, own);  // locked, given back by MADV_DONTNEED_LOCKED
  REQUIRE(mlock(dropped, kPages * kPageBytes) == 0);
  bool can_drop = madvise(dropped, 4 * kPageBytes, 24) == 0;
  char* hidden = map(rw, own);
  fill_page(hidden, 4);
  REQUIRE(mlock(hidden, kPages * kPageBytes) == 0 && mprotect(hidden, kPages * kPageBytes, PROT_NONE) == 0);
  struct rlimit limit = {kPageBytes, kPageBytes};
  REQUIRE(setrlimit(RLIMIT_MEMLOCK, &limit) == 0);

  for (subject_ready(); subject_next(); subject_verdict()) {
    CHECK(page_holds(plain + kPageBytes, 1) && resident(plain) == kPages, "%d locked pages", resident(plain));
    CHECK(has_flag(plain, " lo") && !locked_on_fault(plain), "flags of mlock");
    CHECK(page_holds(on_fault + 2 * kPageBytes, 2) && resident(on_fault) == 1, "%d pages on fault", resident(on_fault));
    CHECK(locked_on_fault(on_fault), "flags of mlock2");
    CHECK(page_holds(full_on_fault + 7 * kPageBytes, 17) && locked_on_fault(full_on_fault), "on fault, all touched");
    CHECK(page_holds(shared_on_fault, 3) && locked_on_fault(shared_on_fault) && resident(shared_on_fault) == 1, "shared");
    CHECK(has_flag(reading, " lo") && !locked_on_fault(reading) && resident(reading) == kPages, "for reading only");
    if (can_drop) CHECK(has_flag(dropped, " lo") && !locked_on_fault(dropped), "locked and dropped");
    CHECK(has_flag(hidden, " lo"), "locked without access");
  }
  return subject_status();
}
