// A ring of io_uring(7) with credentials that were registered with it.
#include "ring.h"

int main(int argc, char** argv) {
  subject_start(argc, argv);
  struct ring r;
  if (!ring_make(&r, 8, 0, 0)) subject_skip("io_uring for this user");
  const long personality = syscall(SYS_io_uring_register, r.fd, IORING_REGISTER_PERSONALITY, NULL, 0);
  REQUIRE(personality > 0);
  for (subject_ready(); subject_next(); subject_verdict()) {
    ring_entry(&r, 0, IORING_OP_NOP, 5)->personality = (uint16_t)personality;
    ring_publish(&r, 1);
    CHECK(ring_enter(&r, 1, 1) == 1 && ring_unread(&r) == 1 && ring_peek(&r, 0)->res == 0, "the personality is gone");
    ring_take(&r, ring_unread(&r));
  }
  return subject_status();
}
