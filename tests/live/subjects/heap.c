// The break: contents, and that it goes on growing and shrinking from where it was.
#include "subject.h"

enum { kBlocks = 200 };

int main(int argc, char** argv) {
  subject_start(argc, argv);
  unsigned char* blocks[kBlocks];
  for (size_t i = 0; i < kBlocks; i++) {
    blocks[i] = malloc(1000 + i);
    memset(blocks[i], (int)i, 1000 + i);
  }
  char* raw = sbrk(3 * kPageBytes + 123);  // an end that is not a page boundary
  REQUIRE(raw != (char*)-1);
  memset(raw, 0x5a, 3 * kPageBytes + 123);
  char* end = sbrk(0);
  subject_path("");  // thread-local buffers exist before the first look at the mappings

  for (subject_ready(); subject_next(); subject_verdict()) {
    CHECK(sbrk(0) == end, "the break is at %p, was %p", sbrk(0), (void*)end);
    for (size_t i = 0; i < kBlocks; i++)
      for (size_t k = 0; k < 1000 + i; k++) CHECK(blocks[i][k] == (unsigned char)i, "block %zu", i);
    CHECK(raw[0] == 0x5a && raw[3 * kPageBytes + 122] == 0x5a, "memory taken by sbrk");
    char* grown = sbrk(64 * kPageBytes);
    CHECK(grown == end, "the break grew at %p instead of %p", (void*)grown, (void*)end);
    if (grown == end) {
      for (size_t i = 0; i < 64 * kPageBytes; i += 512) CHECK(grown[i] == 0, "new heap memory is not zero");
      memset(grown, 1, 64 * kPageBytes);
      memset(grown, 0, kPageBytes);  // the rest of the page that the break keeps
      CHECK(sbrk(-64 * kPageBytes) != (void*)-1, "the break does not shrink");
    }
    void* more = malloc(500);
    CHECK(more != NULL, "malloc after the cycle");
    free(more);
  }
  return subject_status();
}
