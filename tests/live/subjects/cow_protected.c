// Private areas that parent and child made read-only, or not: which of them is writable, and whose pages they are.
#include <sys/mman.h>

#include "subject.h"

enum { kPages = 4 };

static char* map(void) {
  mmap(NULL, kPageBytes, PROT_NONE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  char* area = mmap(NULL, kPages * kPageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  REQUIRE(area != MAP_FAILED && madvise(area, kPages * kPageBytes, MADV_NOHUGEPAGE) == 0);
  return area;
}
static bool is_writable(const char* area) {
  FILE* maps = fopen("/proc/self/maps", "re");
  char line[512], access[5] = "";
  bool writable = false;
  while (fgets(line, sizeof line, maps) != NULL) {
    unsigned long start, end;
    if (sscanf(line, "%lx-%lx %4s", &start, &end, access) == 3 && start <= (uintptr_t)area && (uintptr_t)area < end)
      writable = access[1] == 'w';
  }
  fclose(maps);
  return writable;
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  char* sealed = map();   // read-only in both
  char* emptied = map();  // read-only in both, and the child has dropped its pages
  char* late = map();     // read-only in the child alone
  char* never = map();    // without any page
  for (size_t i = 0; i < kPages; i++) {
    fill_page(sealed + i * kPageBytes, 10 + i);
    fill_page(emptied + i * kPageBytes, 20 + i);
    fill_page(late + i * kPageBytes, 30 + i);
  }
  char* const read_only[] = {sealed, emptied, never};
  for (int i = 0; i < 3; i++) REQUIRE(mprotect(read_only[i], kPages * kPageBytes, PROT_READ) == 0);
  pid_t child = fork();
  if (child == 0) {
    REQUIRE(madvise(emptied, kPages * kPageBytes, MADV_DONTNEED) == 0);
    REQUIRE(mprotect(late, kPages * kPageBytes, PROT_READ) == 0);
    subject_write_file("child", "up\n");
    while (subject_next()) {
      CHECK(!is_writable(sealed) && !is_writable(emptied) && !is_writable(late) && !is_writable(never), "child: writable");
      for (size_t i = 0; i < kPages; i++) {
        CHECK(page_holds(sealed + i * kPageBytes, 10 + i) && page_holds(late + i * kPageBytes, 30 + i), "page %zu", i);
        CHECK(page_is_zero(emptied + i * kPageBytes), "dropped page %zu", i);
      }
      subject_part("child");
    }
    _exit(subject_status());
  }
  REQUIRE(child > 0 && WAIT_UNTIL(access(subject_path("child"), F_OK) == 0));
  for (subject_ready(); subject_next(); subject_verdict()) {
    CHECK(!is_writable(sealed) && !is_writable(emptied) && is_writable(late) && !is_writable(never), "parent: protections");
    for (size_t i = 0; i < kPages; i++)
      CHECK(page_holds(sealed + i * kPageBytes, 10 + i) && page_holds(emptied + i * kPageBytes, 20 + i) &&
                page_holds(late + i * kPageBytes, 30 + i),
            "page %zu", i);
    subject_collect("child");
    subject_join(child);
  }
  return subject_status();
}
