// Guard regions (MADV_GUARD_INSTALL): in private memory, in a private file mapping, with wipe-on-fork, in locked memory, at
// the edges of areas. They fault in the task and in children that it makes later.
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

#include "subject.h"

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102  // Linux 6.13
#endif
enum { kPages = 8 };

static sigjmp_buf fault_return;
static void on_fault(int number) {
  siglongjmp(fault_return, number);
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

static char* map(int flags, int fd, uint64_t salt) {
  mmap(NULL, kPageBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  char* area = mmap(NULL, kPages * kPageBytes, PROT_READ | PROT_WRITE, flags, fd, 0);
  REQUIRE(area != MAP_FAILED);
  for (size_t i = 0; i < kPages; i++) fill_page(area + i * kPageBytes, salt + i);
  return area;
}
static bool guard(char* area, size_t first, size_t count) {
  return madvise(area + first * kPageBytes, count * kPageBytes, MADV_GUARD_INSTALL) == 0;
}
// Guards are the first page, pages 3 and 4, and the last page.
static bool is_guard(size_t page) {
  return page == 0 || page == 3 || page == 4 || page == kPages - 1;
}
static bool install(char* area) {
  return guard(area, 0, 1) && guard(area, 3, 2) && guard(area, kPages - 1, 1);
}
static void check(const char* what, char* area, uint64_t salt) {
  for (size_t i = 0; i < kPages; i++) {
    char* page = area + i * kPageBytes;
    if (is_guard(i))
      CHECK(!can_read(page) && !can_write(page), "%s: guard page %zu can be used", what, i);
    else
      CHECK(page_holds(page, salt + i), "%s: page %zu", what, i);
  }
}

// Which guards of a wipe-on-fork area a child meets is the kernel's affair: one bit for each page that faults.
static int guards_of_new_child(char* area) {
  pid_t child = fork();
  if (child == 0) {
    int seen = 0;
    for (size_t i = 0; i < kPages; i++) seen |= !can_read(area + i * kPageBytes) << i;
    _exit(seen);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child && WIFEXITED(status));
  return WEXITSTATUS(status);
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  struct sigaction action = {.sa_handler = on_fault, .sa_flags = SA_NODEFER};
  REQUIRE(sigaction(SIGSEGV, &action, NULL) == 0);
  const int own = MAP_PRIVATE | MAP_ANONYMOUS;
  char* plain = map(own, -1, 100);
  if (!install(plain)) subject_skip("no guard regions before Linux 6.13");
  char* wiped = map(own, -1, 200);
  REQUIRE(install(wiped) && madvise(wiped, kPages * kPageBytes, MADV_WIPEONFORK) == 0);
  char* locked = map(own, -1, 300);
  REQUIRE(install(locked));
  mlock(locked, kPages * kPageBytes);  // ENOMEM for the guards, locked all the same
  char* for_reading = map(own, -1, 400);
  REQUIRE(install(for_reading) && mprotect(for_reading, kPages * kPageBytes, PROT_READ) == 0);
  int fd = open(subject_path("file"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  REQUIRE(fd >= 0 && ftruncate(fd, kPages * kPageBytes) == 0);
  char* of_file = map(MAP_PRIVATE, fd, 500);
  bool file_guards = install(of_file);  // Linux 6.15
  // One area that is nothing but guards, and one where a guard was taken away again.
  char* all = map(own, -1, 600);
  REQUIRE(guard(all, 0, kPages));
  char* none = map(own, -1, 700);
  REQUIRE(guard(none, 2, 2) && madvise(none + 2 * kPageBytes, 2 * kPageBytes, 103) == 0);
  fill_page(none + 2 * kPageBytes, 702), fill_page(none + 3 * kPageBytes, 703);

  int after_wipe = guards_of_new_child(wiped);

  pid_t child = fork();
  if (child == 0) {
    subject_write_file("child", "up\n");
    while (subject_next()) {
      check("child", plain, 100);
      subject_part("child");
    }
    _exit(subject_status());
  }
  REQUIRE(child > 0 && WAIT_UNTIL(access(subject_path("child"), F_OK) == 0));
  for (subject_ready(); subject_next(); subject_verdict()) {
    check("plain", plain, 100);
    check("wiped", wiped, 200);
    check("locked", locked, 300);
    check("for reading", for_reading, 400);
    if (file_guards) check("file", of_file, 500);
    for (size_t i = 0; i < kPages; i++) {
      CHECK(!can_read(all + i * kPageBytes), "page %zu of guards", i);
      CHECK(page_holds(none + i * kPageBytes, 700 + i), "page %zu without a guard", i);
    }
    subject_collect("child");
    int expected = 0;
    for (size_t i = 0; i < kPages; i++) expected |= is_guard(i) << i;
    CHECK(guards_of_new_child(plain) == expected, "guards in a new child: %#x", guards_of_new_child(plain));
    CHECK(guards_of_new_child(wiped) == after_wipe, "guards after a wipe: %#x", guards_of_new_child(wiped));
    subject_join(child);
  }
  return subject_status();
}
