// Memory sealed by mseal(): content, and that it can neither be unmapped nor get another protection.
#include <sys/mman.h>
#include <sys/syscall.h>

#include "subject.h"

#ifndef SYS_mseal
#define SYS_mseal 462  // Linux 6.10
#endif
enum { kPages = 4 };

static char* map(int prot) {
  mmap(NULL, kPageBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  char* area = mmap(NULL, kPages * kPageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  REQUIRE(area != MAP_FAILED);
  fill_page(area + kPageBytes, 1);
  REQUIRE(mprotect(area, kPages * kPageBytes, prot) == 0);
  return area;
}
static void check_sealed(char* area, const char* what) {
  CHECK(page_holds(area + kPageBytes, 1), "%s: content", what);
  CHECK(mprotect(area, kPageBytes, PROT_NONE) != 0 && errno == EPERM, "%s: the protection can be changed", what);
  CHECK(munmap(area + 3 * kPageBytes, kPageBytes) != 0 && errno == EPERM, "%s: it can be unmapped", what);
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  char* writable = map(PROT_READ | PROT_WRITE);
  char* readable = map(PROT_READ);
  char* part = map(PROT_READ | PROT_WRITE);
  char* locked = map(PROT_READ | PROT_WRITE);
  REQUIRE(mlock(locked, kPages * kPageBytes) == 0 && madvise(locked, kPages * kPageBytes, MADV_DONTDUMP) == 0);
  if (syscall(SYS_mseal, writable, kPages * kPageBytes, 0) != 0) subject_skip("no mseal() before Linux 6.10");
  REQUIRE(syscall(SYS_mseal, readable, kPages * kPageBytes, 0) == 0);
  REQUIRE(syscall(SYS_mseal, part, 2 * kPageBytes, 0) == 0);
  REQUIRE(syscall(SYS_mseal, locked, kPages * kPageBytes, 0) == 0);
  pid_t child = fork();  // inherits the seals
  if (child == 0) {
    subject_write_file("child", "up\n");
    while (subject_next()) {
      check_sealed(writable, "child");
      subject_part("child");
    }
    _exit(subject_status());
  }
  REQUIRE(child > 0 && WAIT_UNTIL(access(subject_path("child"), F_OK) == 0));
  for (subject_ready(); subject_next(); subject_verdict()) {
    check_sealed(writable, "writable");
    check_sealed(readable, "readable");
    check_sealed(locked, "locked");
    CHECK(mprotect(part, kPageBytes, PROT_READ) != 0, "the sealed half");
    CHECK(mprotect(part + 2 * kPageBytes, 2 * kPageBytes, PROT_READ) == 0, "the other half is sealed");
    CHECK(mprotect(part + 2 * kPageBytes, 2 * kPageBytes, PROT_READ | PROT_WRITE) == 0, "the other half is sealed");
    subject_collect("child");
    subject_join(child);
  }
  return subject_status();
}
