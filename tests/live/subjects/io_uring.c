// Rings of io_uring(7) at rest, of several kinds: completions that nobody has taken, entries that were not submitted,
// registered files, buffers and an eventfd, counters far beyond the size of the ring.
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/poll.h>

#include "ring.h"

enum { kKinds = 6, kUnread = 3, kPending = 2, kDirectSlots = 8 };
static const struct {
  unsigned flags, entries, completions;
} kinds[kKinds] = {
    {0, 8, 0},
    {IORING_SETUP_CLAMP | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG, 5, 0},
    {IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SUBMIT_ALL, 64, 0},
    {IORING_SETUP_SQE128 | IORING_SETUP_CQE32 | IORING_SETUP_CQSIZE, 16, 128},
    {kNoArray | IORING_SETUP_SINGLE_ISSUER, 4, 0},
    {IORING_SETUP_R_DISABLED, 4, 0},
};
static struct ring rings[kKinds];
static bool made[kKinds];
static unsigned done[kKinds];  // rounds of check()
static int events, data_pipe[2];
static char buffer[2 * kPageBytes] __attribute__((aligned(4096)));

// Leaves completions untaken and entries unsubmitted.
static void leave(struct ring* r) {
  for (unsigned i = 0; i < kUnread; ++i) ring_entry(r, i, IORING_OP_NOP, 1000 + i);
  ring_publish(r, kUnread);
  REQUIRE(ring_enter(r, kUnread, kUnread) == kUnread);
  // One that the kernel may take, and one that is only being prepared.
  ring_entry(r, 0, IORING_OP_NOP, 2000);
  ring_entry(r, 1, IORING_OP_NOP, 2001);
  ring_publish(r, 1);
}

static void check(struct ring* r, unsigned kind) {
  CHECK(ring_unread(r) == kUnread, "ring %u has %u completions", kind, ring_unread(r));
  for (unsigned i = 0; i < kUnread; ++i)
    CHECK(ring_peek(r, i)->user_data == 1000 + i && ring_peek(r, i)->res == 0, "completion %u of ring %u is %llu", i,
          kind, ring_peek(r, i)->user_data);
  ring_take(r, kUnread);
  ring_publish(r, 1);
  CHECK(ring_enter(r, kPending, kPending) == kPending, "ring %u does not take its entries", kind);
  CHECK(ring_unread(r) == kPending, "ring %u completed %u entries", kind, ring_unread(r));
  for (unsigned i = 0; i < kPending; ++i)
    CHECK(ring_peek(r, i)->user_data == 2000 + i, "entry %u of ring %u was %llu", i, kind, ring_peek(r, i)->user_data);
  ring_take(r, ring_unread(r));
  if (kind == 0) {
    uint64_t counted = 0;
    CHECK(read(events, &counted, sizeof counted) == sizeof counted && counted > 0, "no event for %u completions",
          kPending);
  }
  leave(r);
}

// Through slot 1 of the registered files (the slots around it are empty) into the second page of the second buffer.
static void check_registered(struct ring* r, unsigned round) {
  ring_take(r, ring_unread(r));
  ring_publish(r, 1);
  REQUIRE(ring_enter(r, kPending, kPending) == kPending);
  ring_take(r, kPending);
  char text[16];
  snprintf(text, sizeof text, "round %u", round);
  REQUIRE(write(data_pipe[1], text, sizeof text) == sizeof text);
  struct io_uring_sqe* e = ring_entry(r, 0, IORING_OP_READ_FIXED, 3000);
  e->fd = 1;
  e->flags = IOSQE_FIXED_FILE;
  e->addr = (uint64_t)(uintptr_t)(buffer + kPageBytes);
  e->len = sizeof text;
  e->buf_index = 1;
  ring_publish(r, 1);
  CHECK(ring_enter(r, 1, 1) == 1, "no read from a registered file");
  CHECK(ring_peek(r, 0)->user_data == 3000 && ring_peek(r, 0)->res == sizeof text, "reading gave %d",
        ring_peek(r, 0)->res);
  CHECK(strcmp(buffer + kPageBytes, text) == 0, "the buffer holds '%.16s'", buffer + kPageBytes);
  ring_take(r, 1);
  e = ring_entry(r, 0, IORING_OP_READ, 3001);
  e->fd = 0;
  e->flags = IOSQE_FIXED_FILE;
  ring_publish(r, 1);
  CHECK(ring_enter(r, 1, 1) == 1 && ring_peek(r, 0)->res == -EBADF, "an empty slot gave %d", ring_peek(r, 0)->res);
  ring_take(r, 1);
  uint64_t counted = 0;
  REQUIRE(read(events, &counted, sizeof counted) == sizeof counted);
  leave(r);
}

static void register_things(struct ring* r) {
  int files[3] = {-1, data_pipe[0], -1};
  REQUIRE(syscall(SYS_io_uring_register, r->fd, IORING_REGISTER_FILES, files, 3) == 0);
  struct iovec {
    void* base;
    size_t bytes;
  } buffers[2] = {{NULL, 0}, {buffer, sizeof buffer}};
  REQUIRE(syscall(SYS_io_uring_register, r->fd, IORING_REGISTER_BUFFERS, buffers, 2) == 0);
  REQUIRE(syscall(SYS_io_uring_register, r->fd, IORING_REGISTER_EVENTFD, &events, 1) == 0);
}

// Completions without an entry of their own (a poll that stays), and entries without a completion.
static void count_apart(struct ring* more, struct ring* less) {
  int trigger = eventfd(0, EFD_NONBLOCK);
  REQUIRE(trigger >= 0);
  struct io_uring_sqe* e = ring_entry(more, 0, IORING_OP_POLL_ADD, 7);
  e->fd = trigger;
  e->len = IORING_POLL_ADD_MULTI;
  e->poll32_events = POLLIN;
  ring_publish(more, 1);
  REQUIRE(ring_enter(more, 1, 0) == 1);
  for (int i = 0; i < 700; ++i) {
    uint64_t one = 1;
    REQUIRE(write(trigger, &one, sizeof one) == sizeof one && ring_enter(more, 0, 1) == 0);
    REQUIRE(ring_unread(more) >= 1);
    ring_take(more, ring_unread(more));
    REQUIRE(read(trigger, &one, sizeof one) == sizeof one);
  }
  e = ring_entry(more, 0, IORING_OP_POLL_REMOVE, 8);
  e->addr = 7;
  ring_publish(more, 1);
  REQUIRE(ring_enter(more, 1, 2) == 1 && ring_unread(more) == 2);
  ring_take(more, 2);
  close(trigger);
  for (int i = 0; i < 1000; ++i) {
    ring_entry(less, 0, IORING_OP_NOP, 9)->flags = IOSQE_CQE_SKIP_SUCCESS;
    ring_publish(less, 1);
    REQUIRE(ring_enter(less, 1, 0) == 1 && ring_unread(less) == 0);
  }
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  events = eventfd(0, EFD_NONBLOCK);
  REQUIRE(events >= 0 && pipe(data_pipe) == 0);
  for (unsigned k = 0; k < kKinds; ++k) {
    made[k] = ring_make(&rings[k], kinds[k].entries, kinds[k].flags, kinds[k].completions);
    if (k == 0 && !made[k]) subject_skip("io_uring for this user");
  }
  // The same memory once more, elsewhere and for reading; and numbers that are not the lowest.
  const unsigned* twice = mmap(NULL, kPageBytes, PROT_READ, MAP_SHARED, rings[0].fd, IORING_OFF_CQ_RING);
  REQUIRE(twice != MAP_FAILED && dup2(rings[0].fd, 200) == 200 && close(rings[0].fd) == 0);
  rings[0].fd = 200;
  ring_turn(&rings[0], 5000);
  ring_turn(&rings[1], 77);
  // A worker of the kernel waits for more to do, and is among the threads for some seconds.
  ring_entry(&rings[1], 0, IORING_OP_NOP, 0)->flags = IOSQE_ASYNC;
  ring_publish(&rings[1], 1);
  REQUIRE(ring_enter(&rings[1], 1, 1) == 1);
  ring_take(&rings[1], 1);
  count_apart(&rings[1], &rings[3]);
  if (made[2]) count_apart(&rings[2], &rings[3]);
  register_things(&rings[0]);
  for (unsigned k = 0; k < kKinds; ++k)
    if (made[k] && !(kinds[k].flags & IORING_SETUP_R_DISABLED)) leave(&rings[k]);
  uint64_t counted;
  REQUIRE(read(events, &counted, sizeof counted) == sizeof counted);

  for (subject_ready(); subject_next(); subject_verdict()) {
    for (unsigned k = 0; k < kKinds; ++k) {
      if (!made[k]) continue;
      if (kinds[k].flags & IORING_SETUP_R_DISABLED)
        CHECK(ring_enter(&rings[k], 0, 0) < 0 && errno == EBADFD, "a ring that was not enabled works");
      else
        check(&rings[k], k);
    }
    check_registered(&rings[0], ++done[0]);
    CHECK(twice[3] == ring_get(&rings[0], rings[0].params.cq_off.tail), "the second mapping shows something else");
    CHECK(!(fcntl(200, F_GETFD) & FD_CLOEXEC), "close-on-exec");
  }
  return subject_status();
}
