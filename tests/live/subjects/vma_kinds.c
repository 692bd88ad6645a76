// Kinds of mappings: advice flags, locked memory, areas that grow down, guard pages, thousands of one-page areas.
// The driver compares the flags that smaps shows; here it is tried whether they still work.
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

#include "subject.h"

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102  // Linux 6.13
#endif
enum { kAreas = 4096, kPages = 4 };

static sigjmp_buf fault_return;
static void on_fault(int number) {
  siglongjmp(fault_return, number);
}
static bool can_read(volatile char* at) {
  if (sigsetjmp(fault_return, 1) != 0) return false;
  (void)*at;
  return true;
}

static char* map(size_t pages, int flags) {
  char* area = mmap(NULL, pages * kPageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
  REQUIRE(area != MAP_FAILED);
  return area;
}
static char* map_advised(int advice, uint64_t salt) {
  map(1, 0);  // neighbours of another kind keep the areas apart
  char* area = map(kPages, 0);
  for (size_t i = 0; i < kPages; i++) fill_page(area + i * kPageBytes, salt + i);
  if (madvise(area, kPages * kPageBytes, advice) != 0 && errno != EINVAL) die("madvise %d", advice);
  return area;
}

// A child made after the checkpoint sees what the advice promises.
static void check_fork(char* dont_fork, char* wipe_on_fork) {
  pid_t child = fork();
  if (child == 0) _exit((can_read(dont_fork) ? 1 : 0) | (page_is_zero(wipe_on_fork) ? 0 : 2));
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status), "the forked child");
  CHECK((WEXITSTATUS(status) & 1) == 0, "a dont-fork area was inherited");
  CHECK((WEXITSTATUS(status) & 2) == 0, "a wipe-on-fork area was not wiped");
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  struct sigaction action = {.sa_handler = on_fault, .sa_flags = SA_NODEFER};
  REQUIRE(sigaction(SIGSEGV, &action, NULL) == 0);
  char* dont_fork = map_advised(MADV_DONTFORK, 100);
  char* wipe_on_fork = map_advised(MADV_WIPEONFORK, 200);
  const int advices[] = {MADV_SEQUENTIAL, MADV_RANDOM, MADV_DONTDUMP, MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_MERGEABLE};
  char* advised[6];
  for (int i = 0; i < 6; i++) advised[i] = map_advised(advices[i], 1000 + 10 * (uint64_t)i);
  char* locked = map(kPages, 0);
  REQUIRE(mlock(locked, kPages * kPageBytes) == 0);
  for (size_t i = 0; i < kPages; i++) fill_page(locked + i * kPageBytes, 300 + i);
  char* guarded = map(kPages, 0);
  for (size_t i = 0; i < kPages; i++) fill_page(guarded + i * kPageBytes, 400 + i);
  bool has_guard = madvise(guarded + kPageBytes, kPageBytes, MADV_GUARD_INSTALL) == 0;
  // Room for an area that grows down: its top pages, with free space below.
  char* room = map(400, 0);
  REQUIRE(munmap(room, 400 * kPageBytes) == 0);
  char* grows = mmap(room + 398 * kPageBytes, 2 * kPageBytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED_NOREPLACE, -1, 0);
  REQUIRE(grows != MAP_FAILED);
  fill_page(grows, 501);
  fill_page(grows - kPageBytes, 500);  // has grown once already
  char* many = map(2 * kAreas, 0);
  for (size_t i = 0; i < kAreas; i++) {
    fill_page(many + 2 * i * kPageBytes, 10000 + i);
    REQUIRE(mprotect(many + (2 * i + 1) * kPageBytes, kPageBytes, PROT_NONE) == 0);
  }
  size_t grown_pages = 1;

  for (subject_ready(); subject_next(); subject_verdict()) {
    for (size_t i = 0; i < kPages; i++) {
      CHECK(page_holds(dont_fork + i * kPageBytes, 100 + i) && page_holds(wipe_on_fork + i * kPageBytes, 200 + i),
            "page %zu", i);
      CHECK(page_holds(locked + i * kPageBytes, 300 + i), "locked page %zu", i);
      for (size_t k = 0; k < 6; k++)
        CHECK(page_holds(advised[k] + i * kPageBytes, 1000 + 10 * k + i), "advice %d, page %zu", advices[k], i);
      if (has_guard && i == 1)
        CHECK(!can_read(guarded + kPageBytes), "the guard page can be read");
      else
        CHECK(page_holds(guarded + i * kPageBytes, 400 + i), "page %zu beside a guard", i);
    }
    check_fork(dont_fork, wipe_on_fork);
    CHECK(page_holds(grows, 501) && page_holds(grows - kPageBytes, 500), "content of the area that grows");
    grown_pages += 3;
    CHECK(can_read(grows - grown_pages * kPageBytes), "the area does not grow any more");
    for (size_t i = 0; i < kAreas; i += 7)
      CHECK(page_holds(many + 2 * i * kPageBytes, 10000 + i), "one-page area %zu", i);
  }
  return subject_status();
}
