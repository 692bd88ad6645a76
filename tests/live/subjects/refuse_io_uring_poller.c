// A ring of io_uring(7) with a thread of the kernel that polls for submissions.
#include "ring.h"

int main(int argc, char** argv) {
  subject_start(argc, argv);
  struct ring r;
  memset(&r, 0, sizeof r);
  r.params.flags = IORING_SETUP_SQPOLL;
  r.params.sq_thread_idle = 50;
  r.fd = (int)syscall(SYS_io_uring_setup, 8, &r.params);
  if (r.fd < 0) subject_skip("io_uring for this user");
  ring_map(&r);
  for (subject_ready(); subject_next(); subject_verdict()) {
    ring_entry(&r, 0, IORING_OP_NOP, 5);
    ring_publish(&r, 1);
    syscall(SYS_io_uring_enter, r.fd, 0, 0, IORING_ENTER_SQ_WAKEUP, NULL, 0);
    CHECK(WAIT_UNTIL(ring_unread(&r) == 1) && ring_peek(&r, 0)->user_data == 5, "nothing was completed");
    ring_take(&r, ring_unread(&r));
  }
  return subject_status();
}
