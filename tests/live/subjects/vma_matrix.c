// Every protection of every kind of mapping, with content: none, r, rw, rwx of private and shared memory and files. What
// a program may do with each page is tried, then the protection is raised and the content looked at.
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

#include "subject.h"

enum { kPages = 3 };  // the second page of a private mapping was written, the third one was not touched

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
static bool can_run(char* at) {
  if (sigsetjmp(fault_return, 1) != 0) return false;
  ((void (*)(void))(uintptr_t)at)();
  return true;
}

struct kind {
  const char* name;
  int flags;
  bool is_file;
};
static const struct kind kinds[] = {{"file private", MAP_PRIVATE, true},
                                    {"file shared", MAP_SHARED, true},
                                    {"anonymous private", MAP_PRIVATE | MAP_ANONYMOUS, false},
                                    {"anonymous shared", MAP_SHARED | MAP_ANONYMOUS, false}};
static const int protections[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE | PROT_EXEC};

static char* map(const struct kind* kind, size_t number) {
  int fd = -1;
  if (kind->is_file) {
    char name[32], bytes[kPageBytes];
    snprintf(name, sizeof name, "file%zu", number);
    fd = open(subject_path(name), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    REQUIRE(fd >= 0);
    for (size_t i = 0; i < kPages; i++) {
      fill_page(bytes, 10 * number + i);
      REQUIRE(write(fd, bytes, kPageBytes) == kPageBytes);
    }
  }
  mmap(NULL, kPageBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);  // neighbours stay apart
  char* area = mmap(NULL, kPages * kPageBytes, PROT_READ | PROT_WRITE, kind->flags, fd, 0);
  REQUIRE(area != MAP_FAILED);
  if (!kind->is_file)
    for (size_t i = 0; i < 2; i++) fill_page(area + i * kPageBytes, 10 * number + i);
  fill_page(area + kPageBytes, 10 * number + 5);
  area[kPageBytes] = (char)0xc3;  // ret
  if (fd >= 0) close(fd);
  return area;
}

static void check_content(char* area, const struct kind* kind, size_t number) {
  CHECK(page_holds(area, 10 * number), "%s %zu: first page", kind->name, number);
  char second[kPageBytes];
  fill_page(second, 10 * number + 5);
  second[0] = (char)0xc3;
  CHECK(memcmp(area + kPageBytes, second, kPageBytes) == 0, "%s %zu: written page", kind->name, number);
  CHECK(kind->is_file ? page_holds(area + 2 * kPageBytes, 10 * number + 2) : page_is_zero(area + 2 * kPageBytes),
        "%s %zu: page that was not touched", kind->name, number);
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  struct sigaction action = {.sa_handler = on_fault, .sa_flags = SA_NODEFER};
  REQUIRE(sigaction(SIGSEGV, &action, NULL) == 0);
  char* areas[4][4];
  for (size_t k = 0; k < 4; k++)
    for (size_t p = 0; p < 4; p++) {
      areas[k][p] = map(&kinds[k], 4 * k + p);
      REQUIRE(mprotect(areas[k][p], kPages * kPageBytes, protections[p]) == 0);
    }
  // A file that was opened for reading only stays closed to writers, one opened for both may become writable.
  int reader = open(subject_path("file4"), O_RDONLY | O_CLOEXEC);
  char* read_only = mmap(NULL, kPageBytes, PROT_READ, MAP_SHARED, reader, 0);
  REQUIRE(read_only != MAP_FAILED && close(reader) == 0);

  for (subject_ready(); subject_next(); subject_verdict()) {
    for (size_t k = 0; k < 4; k++)
      for (size_t p = 0; p < 4; p++) {
        char* second = areas[k][p] + kPageBytes;
        CHECK(can_read(second) == ((protections[p] & PROT_READ) != 0), "%s %zu: reading", kinds[k].name, p);
        CHECK(can_write(second) == ((protections[p] & PROT_WRITE) != 0), "%s %zu: writing", kinds[k].name, p);
        CHECK(can_run(second) == ((protections[p] & PROT_EXEC) != 0), "%s %zu: running", kinds[k].name, p);
        CHECK(mprotect(areas[k][p], kPages * kPageBytes, PROT_READ | PROT_WRITE) == 0, "raising the protection");
        check_content(areas[k][p], &kinds[k], 4 * k + p);
        CHECK(mprotect(areas[k][p], kPages * kPageBytes, protections[p]) == 0, "lowering it again");
      }
    CHECK(mprotect(read_only, kPageBytes, PROT_READ | PROT_WRITE) != 0, "a mapping of a file opened for reading");
  }
  return subject_status();
}
