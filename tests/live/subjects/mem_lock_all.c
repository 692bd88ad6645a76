// mlockall(MCL_FUTURE | MCL_ONFAULT): memory that is mapped later is locked, too; the kernel shows it in new areas only.
#include <sys/mman.h>

#include "subject.h"

static bool has_flags(const char* area, const char* first, const char* second) {
  FILE* smaps = fopen("/proc/self/smaps", "re");
  char line[512];
  bool here = false, found = false;
  while (fgets(line, sizeof line, smaps) != NULL) {
    unsigned long start, end;
    if (sscanf(line, "%lx-%lx ", &start, &end) == 2) here = start <= (uintptr_t)area && (uintptr_t)area < end;
    if (here && strncmp(line, "VmFlags:", 8) == 0) found = strstr(line, first) != NULL && strstr(line, second) != NULL;
  }
  fclose(smaps);
  return found;
}
static char* map(void) {
  char* area = mmap(NULL, 4 * kPageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  REQUIRE(area != MAP_FAILED);
  return area;
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  char* before = map();
  fill_page(before, 1);
  pid_t child = fork();  // does not inherit it
  if (child == 0) {
    REQUIRE(mlockall(MCL_CURRENT | MCL_FUTURE) == 0);
    subject_write_file("child", "up\n");
    while (subject_next()) {
      char* area = map();
      CHECK(has_flags(area, " lo", " lo") && !has_flags(area, " lf", " lf"), "the child's new memory is not locked");
      munmap(area, 4 * kPageBytes);
      subject_part("child");
    }
    _exit(subject_status());
  }
  REQUIRE(child > 0 && WAIT_UNTIL(access(subject_path("child"), F_OK) == 0));
  REQUIRE(mlockall(MCL_FUTURE | MCL_ONFAULT) == 0);
  for (subject_ready(); subject_next(); subject_verdict()) {
    CHECK(page_holds(before, 1) && !has_flags(before, " lo", " lo"), "what was mapped before is locked");
    char* area = map();
    // Linux 6.1 has no letters for it.
    CHECK(has_flags(area, " lo", " lf") || has_flags(area, " lo", " ??"), "new memory is not locked on fault");
    munmap(area, 4 * kPageBytes);
    subject_collect("child");
    subject_join(child);
  }
  return subject_status();
}
