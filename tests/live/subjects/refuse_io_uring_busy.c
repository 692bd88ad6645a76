// A ring of io_uring(7) with a request in flight: a read from a pipe in which nothing is.
#include "ring.h"

int main(int argc, char** argv) {
  subject_start(argc, argv);
  struct ring r;
  if (!ring_make(&r, 8, 0, 0)) subject_skip("io_uring for this user");
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  static char text[16];
  for (int round = 0;; ++round) {
    struct io_uring_sqe* e = ring_entry(&r, 0, IORING_OP_READ, 5);
    e->fd = ends[0];
    e->addr = (uint64_t)(uintptr_t)text;
    e->len = sizeof text;
    ring_publish(&r, 1);
    REQUIRE(ring_enter(&r, 1, 0) == 1 && ring_unread(&r) == 0);
    if (round == 0) subject_ready();
    if (!subject_next()) break;
    // It completes as if nothing had happened.
    CHECK(ring_unread(&r) == 0, "the request has completed: %d", ring_peek(&r, 0)->res);
    REQUIRE(write(ends[1], "a line of text.", 16) == 16);
    CHECK(ring_enter(&r, 0, 1) == 0 && ring_unread(&r) == 1, "the request does not complete");
    CHECK(ring_peek(&r, 0)->res == 16 && strcmp(text, "a line of text.") == 0, "it read %d", ring_peek(&r, 0)->res);
    ring_take(&r, ring_unread(&r));
    subject_verdict();
  }
  return subject_status();
}
