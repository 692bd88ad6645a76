// What must not cost what it spans: 10 GiB with two touched pages, private and shared, and 512 MiB cut into thousands of
// protection fragments.
#include <sys/mman.h>

#include "subject.h"

static const size_t kHuge = 10ul << 30, kCut = 512ul << 20;
enum { kFragments = 8192 };

int main(int argc, char** argv) {
  subject_start(argc, argv);
  const int rw = PROT_READ | PROT_WRITE;
  char* own = mmap(NULL, kHuge, rw, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  char* shared = mmap(NULL, kHuge, rw, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  char* cut = mmap(NULL, kCut, rw, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  REQUIRE(own != MAP_FAILED && shared != MAP_FAILED && cut != MAP_FAILED);
  madvise(own, kHuge, MADV_NOHUGEPAGE);
  madvise(cut, kCut, MADV_NOHUGEPAGE);
  fill_page(own + (3ul << 30), 1), fill_page(own + kHuge - kPageBytes, 2);
  fill_page(shared + (4ul << 30), 3), fill_page(shared + kHuge - kPageBytes, 4);
  const size_t step = kCut / kFragments;
  for (size_t i = 0; i < kFragments; i++) {
    fill_page(cut + i * step + kPageBytes, 100 + i);
    static const int protections[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE};
    REQUIRE(mprotect(cut + i * step, step, protections[i % 3]) == 0);
  }
  for (subject_ready(); subject_next(); subject_verdict()) {
    CHECK(page_holds(own + (3ul << 30), 1) && page_holds(own + kHuge - kPageBytes, 2), "touched private pages");
    CHECK(page_holds(shared + (4ul << 30), 3) && page_holds(shared + kHuge - kPageBytes, 4), "touched shared pages");
    CHECK(page_is_zero(own + (1ul << 30)) && page_is_zero(shared + (1ul << 30)), "untouched pages");
    for (size_t i = 0; i < kFragments; i += 11) {
      char* at = cut + i * step;
      CHECK(i % 3 != 0 || mprotect(at, step, PROT_READ) == 0, "raising a protection");
      CHECK(page_holds(at + kPageBytes, 100 + i), "fragment %zu", i);
      if (i % 3 == 0) mprotect(at, step, PROT_NONE);
    }
  }
  return subject_status();
}
