// The main stack: frames in use keep their content, used and left ones do no harm, and it still grows by itself.
#include "subject.h"

__attribute__((noinline)) static unsigned long descend(int depth, unsigned long seed) {
  volatile unsigned char frame[4000];
  for (size_t i = 0; i < sizeof frame; i += 100) frame[i] = (unsigned char)(seed + i);
  unsigned long below = depth > 0 ? descend(depth - 1, seed + 1) : 0;
  for (size_t i = 0; i < sizeof frame; i += 100)
    if (frame[i] != (unsigned char)(seed + i)) return ~0ul;
  return below == ~0ul ? below : below + frame[0];
}

__attribute__((noinline)) static void held_frame(int depth) {
  volatile unsigned char frame[4000];
  for (size_t i = 0; i < sizeof frame; i += 100) frame[i] = (unsigned char)(depth + (int)i);
  if (depth > 0) {
    held_frame(depth - 1);
  } else {
    for (subject_ready(); subject_next(); subject_verdict())
      CHECK(descend(50 + 300 * subject_generation, 7) != ~0ul, "a deep frame lost its content");
  }
  for (size_t i = 0; i < sizeof frame; i += 100)
    if (frame[i] != (unsigned char)(depth + (int)i)) subject_failed_ever = true;  // shown by the exit status
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  REQUIRE(descend(60, 3) != ~0ul);
  held_frame(40);
  return subject_status();
}
