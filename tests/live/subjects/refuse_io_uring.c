// A ring of io_uring(7), at rest and mapped.
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "subject.h"

int main(int argc, char** argv) {
  subject_start(argc, argv);
  struct io_uring_params params;
  memset(&params, 0, sizeof params);
  const int ring = (int)syscall(SYS_io_uring_setup, 8, &params);
  if (ring < 0) subject_skip("io_uring for this user");
  const size_t bytes = params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe);
  char* area = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQ_RING);
  struct io_uring_sqe* entries = mmap(NULL, params.sq_entries * sizeof *entries, PROT_READ | PROT_WRITE,
                                      MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQES);
  REQUIRE(area != MAP_FAILED && entries != MAP_FAILED);
  unsigned* const tail = (unsigned*)(area + params.sq_off.tail);
  unsigned* const completed = (unsigned*)(area + params.cq_off.tail);
  unsigned* const slots = (unsigned*)(area + params.sq_off.array);
  for (subject_ready(); subject_next(); subject_verdict()) {
    // It works on: one request that does nothing.
    const unsigned at = *tail & (params.sq_entries - 1), before = *completed;
    memset(&entries[at], 0, sizeof entries[at]);
    entries[at].opcode = IORING_OP_NOP;
    slots[at] = at;
    __atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
    CHECK(syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) == 1, "nothing was submitted");
    CHECK(__atomic_load_n(completed, __ATOMIC_ACQUIRE) == before + 1, "nothing was completed");
  }
  return subject_status();
}
