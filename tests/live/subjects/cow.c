// Memory that parent and child share copy-on-write: pages nobody wrote since the fork are the same physical page
// before and after, pages that diverged are not, and areas that only sit at the same address stay separate.
#include <sys/mman.h>

#include "subject.h"

enum { kPages = 32 };
static const uint64_t kFrameMask = (1ul << 55) - 1;

// The child tells its frames through a file: no shared memory is needed for the test itself.
static void write_frames(const char* area, const char* mapped) {
  char path[64];
  snprintf(path, sizeof path, "frames.%d", subject_generation);
  FILE* out = fopen(subject_path(path), "w");
  for (size_t i = 0; i < kPages; i++)
    fprintf(out, "%lx %lx\n", pagemap_word(area + i * kPageBytes) & kFrameMask,
            pagemap_word(mapped + i * kPageBytes) & kFrameMask);
  fclose(out);
}

static bool parent_writes(size_t i) {
  return i % 4 == 1;
}
static bool child_writes(size_t i) {
  return i % 4 == 2;
}

static char* map(int fd) {
  int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_PRIVATE;
  char* area = mmap(NULL, kPages * kPageBytes, PROT_READ | PROT_WRITE, flags, fd, 0);
  REQUIRE(area != MAP_FAILED);
  madvise(area, kPages * kPageBytes, MADV_NOHUGEPAGE);
  for (size_t i = 0; i < kPages; i++) fill_page(area + i * kPageBytes, i);
  return area;
}

static void child_main(char* area, char* mapped, char* separate) {
  REQUIRE(mmap(separate, kPageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
          separate);
  fill_page(separate, 1);
  for (size_t i = 0; i < kPages; i++) {
    if (!child_writes(i)) continue;
    fill_page(area + i * kPageBytes, 200 + i);
    fill_page(mapped + i * kPageBytes, 200 + i);
  }
  subject_write_file("child", "up\n");
  while (subject_next()) {
    for (size_t i = 0; i < kPages; i++) {
      uint64_t salt = child_writes(i) ? 200 + i : i;
      CHECK(page_holds(area + i * kPageBytes, salt), "page %zu", i);
      CHECK(page_holds(mapped + i * kPageBytes, salt), "file page %zu", i);
    }
    CHECK(page_holds(separate, 1), "the separate page");
    write_frames(area, mapped);
    subject_part("child");
  }
  WAIT_UNTIL(access(subject_path("compared"), F_OK) == 0);  // its pages must be there until the parent has looked
  _exit(subject_status());
}

static void compare_frames(const char* area, const char* mapped) {
  char path[64];
  snprintf(path, sizeof path, "frames.%d", subject_generation);
  FILE* in = fopen(subject_path(path), "r");
  CHECK(in != NULL, "the child wrote no frames");
  if (in == NULL) return;
  for (size_t i = 0; i < kPages; i++) {
    unsigned long anonymous = 0, file = 0;
    CHECK(fscanf(in, "%lx %lx", &anonymous, &file) == 2, "the child's frames end early");
    bool shared = !parent_writes(i) && !child_writes(i);
    CHECK((anonymous == (pagemap_word(area + i * kPageBytes) & kFrameMask)) == shared, "anonymous page %zu is %s", i,
          shared ? "no longer shared" : "shared");
    CHECK((file == (pagemap_word(mapped + i * kPageBytes) & kFrameMask)) == shared,
          "page %zu of the file mapping is %s", i, shared ? "no longer shared" : "shared");
  }
  fclose(in);
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  int fd = open(subject_path("data"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  REQUIRE(fd >= 0 && ftruncate(fd, kPages * kPageBytes) == 0);
  char* area = map(-1);
  char* mapped = map(fd);
  close(fd);
  char* separate = map(-1);
  if ((pagemap_word(area) & kFrameMask) == 0) subject_skip("frame numbers in pagemap (CAP_SYS_ADMIN)");
  pid_t child = fork();
  if (child == 0) child_main(area, mapped, separate);
  REQUIRE(child > 0 && WAIT_UNTIL(access(subject_path("child"), F_OK) == 0));
  for (size_t i = 0; i < kPages; i++) {
    if (!parent_writes(i)) continue;
    fill_page(area + i * kPageBytes, 100 + i);
    fill_page(mapped + i * kPageBytes, 100 + i);
  }

  for (subject_ready(); subject_next(); subject_verdict()) {
    subject_collect("child");
    for (size_t i = 0; i < kPages; i++) {
      uint64_t salt = parent_writes(i) ? 100 + i : i;
      CHECK(page_holds(area + i * kPageBytes, salt), "page %zu", i);
      CHECK(page_holds(mapped + i * kPageBytes, salt), "file page %zu", i);
    }
    CHECK(page_holds(separate, 0), "the parent's page at the address of a separate page");
    compare_frames(area, mapped);
    if (subject_last) subject_write_file("compared", "\n");
    subject_join(child);
  }
  return subject_status();
}
