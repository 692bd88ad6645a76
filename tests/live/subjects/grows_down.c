// Areas that grow down: content, the flag, more growth; grown already, split by mprotect, right above another area, with
// one page of gap left.
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

#include "subject.h"

enum { kGap = 300, kRoom = 2 * kGap };  // the kernel keeps 256 pages free below (stack_guard_gap)

static sigjmp_buf fault_return;
static void on_fault(int number) {
  siglongjmp(fault_return, number);
}
static bool can_write(volatile char* at) {
  if (sigsetjmp(fault_return, 1) != 0) return false;
  *at = 1;
  return true;
}

// Two pages at the top of a free range; `below`: pages mapped at the bottom of it.
static char* map_growing(size_t room_pages, size_t below_pages) {
  char* room = mmap(NULL, (room_pages + 1) * kPageBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  REQUIRE(room != MAP_FAILED && munmap(room, room_pages * kPageBytes) == 0);
  if (below_pages > 0)
    REQUIRE(mmap(room, below_pages * kPageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == room);
  char* area = mmap(room + (room_pages - 2) * kPageBytes, 2 * kPageBytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED, -1, 0);
  REQUIRE(area != MAP_FAILED);
  fill_page(area, 1), fill_page(area + kPageBytes, 2);
  return area;
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  stack_t stack = {.ss_sp = malloc(65536), .ss_size = 65536};
  struct sigaction action = {.sa_handler = on_fault, .sa_flags = SA_NODEFER | SA_ONSTACK};
  REQUIRE(sigaltstack(&stack, NULL) == 0 && sigaction(SIGSEGV, &action, NULL) == 0 && sigaction(SIGBUS, &action, NULL) == 0);
  char* grown = map_growing(kRoom, 0);
  for (int i = 1; i <= 5; i++) fill_page(grown - i * kPageBytes, (uint64_t)(10 + i));
  char* split = map_growing(kRoom, 0);
  fill_page(split - kPageBytes, 21), fill_page(split - 2 * kPageBytes, 22);
  REQUIRE(mprotect(split - kPageBytes, kPageBytes, PROT_READ) == 0);  // three areas now
  // Directly above an ordinary area: cannot grow at all.
  char* bordering = map_growing(10, 8);
  fill_page(bordering - kPageBytes, 31);
  // One free page between them, which the kernel does not give away.
  char* gap = map_growing(10, 7);
  char* never_written = map_growing(kRoom, 0);
  REQUIRE(madvise(never_written, 2 * kPageBytes, MADV_DONTNEED) == 0);
  int more = 0;

  for (subject_ready(); subject_next(); subject_verdict()) {
    for (int i = 1; i <= 5; i++) CHECK(page_holds(grown - i * kPageBytes, (uint64_t)(10 + i)), "grown page %d", i);
    CHECK(page_holds(grown, 1) && page_holds(grown + kPageBytes, 2), "first pages");
    CHECK(page_holds(split - kPageBytes, 21) && page_holds(split - 2 * kPageBytes, 22) && page_holds(split, 1), "split area");
    CHECK(!can_write(split - kPageBytes), "the part that is for reading only can be written");
    CHECK(page_holds(bordering - kPageBytes, 31) && page_holds(bordering, 1), "areas that border on each other");
    CHECK(page_holds(gap, 1) && !can_write(gap - kPageBytes), "the gap was given away");
    CHECK(page_is_zero(never_written), "an empty area");
    more++;
    CHECK(can_write(grown - (5 + more) * kPageBytes), "the grown area does not grow any more");
    CHECK(can_write(split - (2 + more) * kPageBytes), "the split area does not grow any more");
    CHECK(can_write(never_written - more * kPageBytes), "the empty area does not grow");
  }
  return subject_status();
}
