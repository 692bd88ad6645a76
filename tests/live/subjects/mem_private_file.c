// Private file mappings: modified pages keep their content, unmodified ones are still those of the file,
// also with an offset, beyond the end of the file, and as code.
#include <sys/mman.h>

#include "subject.h"

enum { kPages = 16 };

static bool is_file_page(const char* at) {
  return (pagemap_word(at) >> 61 & 1) != 0;
}

static int make_file(const char* name, size_t pages, uint64_t salt) {
  int fd = open(subject_path(name), O_RDWR | O_CREAT | O_TRUNC, 0755);
  char page[kPageBytes];
  for (size_t i = 0; i < pages; i++) {
    fill_page(page, salt + i);
    REQUIRE(write(fd, page, sizeof page) == sizeof page);
  }
  return fd;
}

static int call(char* at) {
  int (*function)(void);
  memcpy(&function, &at, sizeof function);
  return function();
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  int fd = make_file("data", kPages, 100);
  char* area = mmap(NULL, kPages * kPageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
  char* tail = mmap(NULL, 4 * kPageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, (kPages - 2) * kPageBytes);
  REQUIRE(area != MAP_FAILED && tail != MAP_FAILED);
  close(fd);
  for (size_t i = 1; i < kPages; i += 2) fill_page(area + i * kPageBytes, 500 + i);
  REQUIRE(mprotect(area + 4 * kPageBytes, 4 * kPageBytes, PROT_READ) == 0);  // cut in three, modified pages inside
  fill_page(tail, 700);

  static const char kReturn42[] = "\xb8\x2a\x00\x00\x00\xc3";  // mov $42, %eax; ret
  int code_fd = make_file("code", 1, 1);
  REQUIRE(pwrite(code_fd, kReturn42, sizeof kReturn42, 0) == sizeof kReturn42);
  char* code = mmap(NULL, kPageBytes, PROT_READ | PROT_EXEC, MAP_PRIVATE, code_fd, 0);
  REQUIRE(code != MAP_FAILED);
  close(code_fd);

  for (subject_ready(); subject_next(); subject_verdict()) {
    for (size_t i = 0; i < kPages; i++) {
      char* page = area + i * kPageBytes;
      CHECK(page_holds(page, i % 2 ? 500 + i : 100 + i), "page %zu", i);
      CHECK(is_file_page(page) == (i % 2 == 0), "page %zu is%s a page of the file", i, i % 2 ? "" : " not");
    }
    CHECK(page_holds(tail, 700), "modified page of the mapping with an offset");
    CHECK(page_holds(tail + kPageBytes, 100 + kPages - 1), "file page of the mapping with an offset");
    CHECK(call(code) == 42, "code in a mapped file");
    char page[kPageBytes];  // the file itself was not written to
    fd = open(subject_path("data"), O_RDONLY);
    CHECK(pread(fd, page, sizeof page, kPageBytes) == sizeof page && page_holds(page, 101), "the file was changed");
    close(fd);
  }
  return subject_status();
}
