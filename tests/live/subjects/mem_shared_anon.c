// Shared anonymous memory: what one task writes the other sees, through mappings of different offset and length.
#include <sys/mman.h>

#include "subject.h"

static const size_t kBytes = 1ul << 30;  // only touched pages may be stored
enum { kTouched = 8 };

struct shared {
  volatile int parent_generation;
  volatile int child_generation;
};

static void child_main(char* area) {
  // The child keeps two pieces with a hole between them: same object, other offsets.
  REQUIRE(munmap(area + 4 * kPageBytes, 64 * kPageBytes) == 0);
  struct shared* shared = (struct shared*)(void*)(area + kPageBytes * 100);
  subject_write_file("child", "up\n");
  while (subject_next()) {
    CHECK(WAIT_UNTIL(shared->parent_generation == subject_generation), "the parent's write does not arrive");
    shared->child_generation = subject_generation;
    for (size_t i = 0; i < 4; i++) CHECK(page_holds(area + i * kPageBytes, i), "page %zu", i);
    subject_part("child");
  }
  _exit(subject_status());
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  char* area = mmap(NULL, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  REQUIRE(area != MAP_FAILED);
  for (size_t i = 0; i < kTouched; i++) fill_page(area + i * kPageBytes, i);
  fill_page(area + kBytes - kPageBytes, 99);
  char* again = mremap(area + 2 * kPageBytes, 0, 2 * kPageBytes, MREMAP_MAYMOVE);  // a second mapping of pages 2, 3
  REQUIRE(again != MAP_FAILED);
  struct shared* shared = (struct shared*)(void*)(area + kPageBytes * 100);
  pid_t child = fork();
  if (child == 0) child_main(area);
  REQUIRE(child > 0 && WAIT_UNTIL(access(subject_path("child"), F_OK) == 0));

  for (subject_ready(); subject_next(); subject_verdict()) {
    for (size_t i = 0; i < kTouched; i++) CHECK(page_holds(area + i * kPageBytes, i), "page %zu", i);
    CHECK(page_holds(area + kBytes - kPageBytes, 99), "last page");
    CHECK(page_is_zero(area + kBytes / 2), "hole");
    again[8]++;
    CHECK(again[8] == area[2 * kPageBytes + 8], "the second mapping is another object");
    again[8]--;
    shared->parent_generation = subject_generation;
    CHECK(WAIT_UNTIL(shared->child_generation == subject_generation), "the child's write does not arrive");
    subject_collect("child");
    subject_join(child);
  }
  return subject_status();
}
