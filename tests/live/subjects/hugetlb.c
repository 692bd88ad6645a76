// Huge pages of hugetlbfs: private, shared, inherited, and behind a memfd.
#include <sys/mman.h>

#include "subject.h"

enum { kHuge = 2 << 20 };

static bool reserve(int wanted) {
  char text[32] = "";
  const char* path = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
  subject_read_file(path, text, sizeof text);
  if (atoi(text) >= wanted) return true;
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return false;
  snprintf(text, sizeof text, "%d", wanted);
  bool written = write(fd, text, strlen(text)) > 0;
  close(fd);
  subject_read_file(path, text, sizeof text);
  return written && atoi(text) >= wanted;
}
static char* map(int flags, int fd) {
  char* area = mmap(NULL, 3 * kHuge, PROT_READ | PROT_WRITE, flags, fd, 0);
  REQUIRE(area != MAP_FAILED);
  return area;
}
static bool backed_by_huge_pages(const char* area) {
  FILE* smaps = fopen("/proc/self/smaps", "re");
  char line[512];
  bool here = false, huge = false;
  while (fgets(line, sizeof line, smaps) != NULL) {
    unsigned long start, end;
    if (sscanf(line, "%lx-%lx ", &start, &end) == 2) here = start <= (uintptr_t)area && (uintptr_t)area < end;
    if (here && strncmp(line, "KernelPageSize:     2048", 24) == 0) huge = true;
  }
  fclose(smaps);
  return huge;
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  if (!reserve(40)) subject_skip("no 40 huge pages can be reserved");
  char* own = map(MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1);
  char* shared = map(MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB, -1);
  int fd = memfd_create("huge", MFD_HUGETLB | (21u << MAP_HUGE_SHIFT));
  if (fd < 0) subject_skip("no memfd of huge pages");
  REQUIRE(ftruncate(fd, 3 * kHuge) == 0);
  char* of_memfd = map(MAP_SHARED, fd);
  char* private_of_memfd = map(MAP_PRIVATE, fd);
  fill_page(own, 1), fill_page(own + kHuge + 5 * kPageBytes, 2);
  fill_page(shared + kHuge, 3), fill_page(of_memfd + 2 * kHuge + kPageBytes, 4), fill_page(of_memfd, 6);
  fill_page(private_of_memfd + kHuge, 5);

  pid_t child = fork();
  if (child == 0) {
    fill_page(own + kHuge, 20);  // the child's copy diverges
    subject_write_file("child", "up\n");
    while (subject_next()) {
      CHECK(page_holds(own, 1) && page_holds(own + kHuge, 20) && page_holds(own + kHuge + 5 * kPageBytes, 2), "own pages");
      CHECK(page_holds(private_of_memfd + kHuge, 5), "own page of the memfd");
      CHECK(backed_by_huge_pages(own), "small pages in the child");
      shared[kHuge + 8192] = (char)subject_generation;
      subject_part("child");
    }
    _exit(subject_status());
  }
  REQUIRE(child > 0 && WAIT_UNTIL(access(subject_path("child"), F_OK) == 0));

  for (subject_ready(); subject_next(); subject_verdict()) {
    subject_collect("child");
    CHECK(page_holds(own, 1) && page_is_zero(own + kHuge) && page_holds(own + kHuge + 5 * kPageBytes, 2), "own pages");
    CHECK(page_is_zero(own + 2 * kHuge), "an untouched page");
    CHECK(page_holds(shared + kHuge, 3) && shared[kHuge + 8192] == (char)subject_generation, "shared pages");
    CHECK(page_holds(of_memfd + 2 * kHuge + kPageBytes, 4) && page_holds(of_memfd, 6), "pages of the memfd");
    CHECK(page_holds(private_of_memfd + kHuge, 5) && page_holds(private_of_memfd, 6), "private pages of the memfd");
    CHECK(backed_by_huge_pages(own) && backed_by_huge_pages(shared) && backed_by_huge_pages(of_memfd), "small pages");
    subject_join(child);
  }
  return subject_status();
}
