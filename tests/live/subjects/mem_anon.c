// Private anonymous memory: page contents, holes, a sparse area far larger than memory allows to store,
// content behind PROT_NONE, and an area cut into many protections whose effect is tried with real faults.
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

#include "subject.h"

enum { kPages = 512, kFragments = 1024 };
static const size_t kSparseBytes = 10ul << 30;
static const int kProtections[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE, PROT_READ | PROT_EXEC,
                                   PROT_READ | PROT_WRITE | PROT_EXEC};

static sigjmp_buf fault_return;
static void on_fault(int signal_number) {
  siglongjmp(fault_return, signal_number);
}

static bool can_read(volatile char* at) {
  if (sigsetjmp(fault_return, 1) != 0) return false;
  (void)*at;
  return true;
}
static bool can_write(volatile char* at) {
  if (sigsetjmp(fault_return, 1) != 0) return false;
  *at = *at;
  return true;
}
static bool can_execute(char* at) {  // the first byte of every fragment is a `ret` instruction
  if (sigsetjmp(fault_return, 1) != 0) return false;
  void (*function)(void);
  memcpy(&function, &at, sizeof function);
  function();
  return true;
}

static char* map(size_t bytes, int flags) {
  void* area = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
  REQUIRE(area != MAP_FAILED);
  return area;
}

static void check_fragments(char* fragments) {
  for (size_t i = 0; i < kFragments; i++) {
    char* page = fragments + i * kPageBytes;
    int protection = kProtections[i % 5];
    bool readable = protection & PROT_READ;
    CHECK(can_read(page) == readable, "fragment %zu: reading", i);
    CHECK(can_write(page) == ((protection & PROT_WRITE) != 0), "fragment %zu: writing", i);
    CHECK(can_execute(page) == ((protection & PROT_EXEC) != 0), "fragment %zu: executing", i);
    if (!readable) mprotect(page, kPageBytes, PROT_READ);
    CHECK(memcmp(page, "\xc3 fragment", 10) == 0 && *(size_t*)(void*)(page + 16) == i, "fragment %zu: content", i);
    if (!readable) mprotect(page, kPageBytes, protection);
  }
}

static long resident_pages(void) {
  char text[128];
  long total, resident = -1;
  if (subject_read_file("/proc/self/statm", text, sizeof text) <= 0) return -1;
  return sscanf(text, "%ld %ld", &total, &resident) == 2 ? resident : -1;
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  struct sigaction action = {.sa_handler = on_fault, .sa_flags = SA_NODEFER};
  REQUIRE(sigaction(SIGSEGV, &action, NULL) == 0);

  char* pages = map(kPages * kPageBytes, 0);
  for (size_t i = 0; i < kPages; i += 2) fill_page(pages + i * kPageBytes, i);  // every second page is a hole
  memset(pages + kPageBytes, 0, kPageBytes);                                    // a page that exists and is zero
  char* sparse = map(kSparseBytes, MAP_NORESERVE);
  fill_page(sparse + (1ul << 30), 1001);
  fill_page(sparse + kSparseBytes - kPageBytes, 1002);
  char* hidden = map(4 * kPageBytes, 0);
  for (size_t i = 0; i < 4; i++) fill_page(hidden + i * kPageBytes, 2000 + i);
  REQUIRE(mprotect(hidden, 4 * kPageBytes, PROT_NONE) == 0);
  char* fragments = map(kFragments * kPageBytes, 0);
  for (size_t i = 0; i < kFragments; i++) {
    char* page = fragments + i * kPageBytes;
    memcpy(page, "\xc3 fragment", 10);
    memcpy(page + 16, &i, sizeof i);
    REQUIRE(mprotect(page, kPageBytes, kProtections[i % 5]) == 0);
  }

  for (subject_ready(); subject_next(); subject_verdict()) {
    CHECK(resident_pages() > 0 && resident_pages() < 50000, "%ld resident pages", resident_pages());
    CHECK((pagemap_word(sparse) >> 62) == 0, "an untouched page of the sparse area is there");
    for (size_t i = 0; i < kPages; i++) {
      char* page = pages + i * kPageBytes;
      CHECK(i % 2 == 0 ? page_holds(page, i) : page_is_zero(page), "page %zu", i);
    }
    CHECK(page_holds(sparse + (1ul << 30), 1001), "first page of the sparse area");
    CHECK(page_holds(sparse + kSparseBytes - kPageBytes, 1002), "last page of the sparse area");
    CHECK(page_is_zero(sparse + kSparseBytes / 2), "hole of the sparse area");
    CHECK(!can_read(hidden), "the hidden area can be read");
    mprotect(hidden, 4 * kPageBytes, PROT_READ);
    for (size_t i = 0; i < 4; i++) CHECK(page_holds(hidden + i * kPageBytes, 2000 + i), "hidden page %zu", i);
    mprotect(hidden, 4 * kPageBytes, PROT_NONE);
    check_fragments(fragments);
  }
  return subject_status();
}
