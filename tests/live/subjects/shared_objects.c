// Shared anonymous objects: odd lengths, mappings that lost parts, moved or were made again through map_files, punched
// holes, an object that is larger than all that is mapped of it, private mappings of one.
#include <sys/mman.h>

#include "subject.h"

static int open_object(char* start, size_t bytes, int flags) {
  char path[96];
  uintptr_t first = (uintptr_t)start, end = first + (bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
  snprintf(path, sizeof path, "/proc/self/map_files/%lx-%lx", (unsigned long)first, (unsigned long)end);
  return open(path, flags | O_CLOEXEC);
}
static char* map_shared(size_t bytes) {
  mmap(NULL, kPageBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  char* area = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  REQUIRE(area != MAP_FAILED);
  return area;
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  char* odd = map_shared(5 * kPageBytes + 700);
  fill_page(odd + 5 * kPageBytes, 5);
  char* partial = map_shared(20 * kPageBytes);
  for (size_t i = 0; i < 20; i++) fill_page(partial + i * kPageBytes, 100 + i);
  int object = open_object(partial, 20 * kPageBytes, O_RDWR);
  if (object < 0) subject_skip("map_files cannot be opened");
  REQUIRE(lseek(object, 4096 * 3 + 5, SEEK_SET) > 0);
  // The object goes on behind what is left of its mapping.
  REQUIRE(munmap(partial + 4 * kPageBytes, 16 * kPageBytes) == 0);
  char* hidden = map_shared(64 * kPageBytes);
  for (size_t i = 0; i < 64; i++) fill_page(hidden + i * kPageBytes, 1000 + i);
  REQUIRE(munmap(hidden + 8 * kPageBytes, 56 * kPageBytes) == 0);
  char* punched = map_shared(10 * kPageBytes);
  for (size_t i = 0; i < 10; i++) fill_page(punched + i * kPageBytes, 200 + i);
  REQUIRE(madvise(punched + 3 * kPageBytes, 4 * kPageBytes, MADV_REMOVE) == 0);
  char* moved = map_shared(6 * kPageBytes);
  for (size_t i = 0; i < 6; i++) fill_page(moved + i * kPageBytes, 300 + i);
  char* place = mmap(NULL, 12 * kPageBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  char* tail = mremap(moved + 4 * kPageBytes, 2 * kPageBytes, 2 * kPageBytes, MREMAP_MAYMOVE | MREMAP_FIXED,
                      place + 5 * kPageBytes);
  REQUIRE(tail == place + 5 * kPageBytes);
  // A private mapping of the first object, which keeps one page of its own and has another one through the object.
  char* own = mmap(NULL, 20 * kPageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, object, 0);
  REQUIRE(own != MAP_FAILED);
  fill_page(own + 10 * kPageBytes, 77);
  char* again = mmap(NULL, 2 * kPageBytes, PROT_READ, MAP_SHARED, object, 18 * kPageBytes);
  REQUIRE(again != MAP_FAILED);
  char* unreadable = map_shared(2 * kPageBytes);
  fill_page(unreadable + kPageBytes, 400);
  REQUIRE(mprotect(unreadable, 2 * kPageBytes, PROT_NONE) == 0);

  pid_t child = fork();
  if (child == 0) {
    REQUIRE(munmap(odd, 3 * kPageBytes) == 0);
    char* moved_on = mremap(partial, 4 * kPageBytes, 4 * kPageBytes, MREMAP_MAYMOVE | MREMAP_FIXED, place);
    REQUIRE(moved_on == place);
    fill_page(own + 11 * kPageBytes, 78);
    subject_write_file("child", "up\n");
    while (subject_next()) {
      CHECK(page_holds(moved_on, 100) && page_holds(moved_on + 3 * kPageBytes, 103), "the moved mapping");
      CHECK(page_holds(own + 10 * kPageBytes, 77) && page_holds(own + 11 * kPageBytes, 78), "own pages");
      CHECK(page_holds(own + 12 * kPageBytes, 112), "pages of the object");
      odd[4 * kPageBytes] = (char)subject_generation;
      subject_part("child");
    }
    _exit(subject_status());
  }
  REQUIRE(child > 0 && WAIT_UNTIL(access(subject_path("child"), F_OK) == 0));

  for (subject_ready(); subject_next(); subject_verdict()) {
    subject_collect("child");
    CHECK(odd[4 * kPageBytes] == (char)subject_generation, "the child's write does not arrive");
    CHECK(page_holds(odd + 5 * kPageBytes, 5), "the last page of an odd length");
    for (size_t i = 0; i < 4; i++) CHECK(page_holds(partial + i * kPageBytes, 100 + i), "page %zu", i);
    CHECK(lseek(object, 0, SEEK_CUR) == 4096 * 3 + 5, "position of the object");
    char bytes[kPageBytes];
    for (size_t i = 4; i < 20; i++)
      CHECK(pread(object, bytes, kPageBytes, (off_t)(i * kPageBytes)) == kPageBytes && page_holds(bytes, 100 + i),
            "page %zu of the object", i);
    CHECK(page_holds(again, 118) && page_holds(again + kPageBytes, 119), "the mapping through map_files");
    CHECK(page_holds(own + 10 * kPageBytes, 77) && page_holds(own + 11 * kPageBytes, 111), "the private mapping");
    for (size_t i = 0; i < 8; i++) CHECK(page_holds(hidden + i * kPageBytes, 1000 + i), "page %zu", i);
    int whole = open_object(hidden, 8 * kPageBytes, O_RDONLY);
    struct stat st;
    CHECK(fstat(whole, &st) == 0 && st.st_size == 64 * kPageBytes, "the object has %ld bytes", (long)st.st_size);
    CHECK(pread(whole, bytes, kPageBytes, 63 * kPageBytes) == kPageBytes && page_holds(bytes, 1063), "its last page");
    close(whole);
    for (size_t i = 0; i < 10; i++)
      CHECK(i >= 3 && i < 7 ? page_is_zero(punched + i * kPageBytes) : page_holds(punched + i * kPageBytes, 200 + i),
            "punched page %zu", i);
    for (size_t i = 0; i < 4; i++) CHECK(page_holds(moved + i * kPageBytes, 300 + i), "page %zu", i);
    CHECK(page_holds(tail, 304) && page_holds(tail + kPageBytes, 305), "the moved part");
    CHECK(mprotect(unreadable, 2 * kPageBytes, PROT_READ) == 0 && page_holds(unreadable + kPageBytes, 400), "PROT_NONE");
    mprotect(unreadable, 2 * kPageBytes, PROT_NONE);
    subject_join(child);
  }
  return subject_status();
}
