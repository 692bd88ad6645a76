// A task that unmapped its vdso, as sandboxes do: it does not get one back. No function of the C library that reads the
// clock may be called from then on.
#include <sys/mman.h>

#include "subject.h"

static int special_areas(void) {
  char text[32768];
  REQUIRE(subject_read_file("/proc/self/maps", text, sizeof text) > 0);
  return (strstr(text, "[vdso]") != NULL) + (strstr(text, "[vvar") != NULL);
}

static void unmap_line(const char* line) {
  unsigned long start, end;
  REQUIRE(sscanf(line, "%lx-%lx", &start, &end) == 2);
  REQUIRE(munmap((void*)start, end - start) == 0);
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  char text[32768];
  REQUIRE(subject_read_file("/proc/self/maps", text, sizeof text) > 0);
  for (char* line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n"))
    if (strstr(line, "[vdso]") != NULL || strstr(line, "[vvar") != NULL) unmap_line(line);
  REQUIRE(special_areas() == 0);
  for (subject_ready(); subject_next(); subject_verdict()) CHECK(special_areas() == 0, "there is a vdso again");
  return subject_status();
}
