// A ring of io_uring(7) by plain system calls.
#pragma once

#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "subject.h"

enum { kNoArray = 1 << 16 };  // IORING_SETUP_NO_SQARRAY

struct ring {
  int fd;
  struct io_uring_params params;
  char* area;
  char* entries;
  size_t area_bytes, entry_bytes, stride, completion_bytes;
};

__attribute__((unused)) static unsigned* ring_word(const struct ring* r, unsigned offset) {
  return (unsigned*)(r->area + offset);
}
__attribute__((unused)) static unsigned ring_get(const struct ring* r, unsigned offset) {
  return __atomic_load_n(ring_word(r, offset), __ATOMIC_ACQUIRE);
}

__attribute__((unused)) static void ring_map(struct ring* r) {
  const struct io_uring_params* p = &r->params;
  r->stride = p->flags & IORING_SETUP_SQE128 ? 128 : 64;
  r->completion_bytes = p->flags & IORING_SETUP_CQE32 ? 32 : 16;
  r->area_bytes = p->flags & kNoArray ? p->cq_off.cqes + p->cq_entries * r->completion_bytes
                                      : p->sq_off.array + p->sq_entries * sizeof(unsigned);
  r->entry_bytes = p->sq_entries * r->stride;
  r->area = mmap(NULL, r->area_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, r->fd, IORING_OFF_SQ_RING);
  r->entries = mmap(NULL, r->entry_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, r->fd, IORING_OFF_SQES);
  REQUIRE(r->area != MAP_FAILED && r->entries != MAP_FAILED);
}

// False when the kernel does not know the flags.
__attribute__((unused)) static bool ring_make(struct ring* r, unsigned entries, unsigned flags, unsigned completions) {
  memset(r, 0, sizeof *r);
  r->params.flags = flags;
  r->params.cq_entries = completions;
  r->fd = (int)syscall(SYS_io_uring_setup, entries, &r->params);
  if (r->fd < 0) return false;
  ring_map(r);
  return true;
}

__attribute__((unused)) static long ring_enter(const struct ring* r, unsigned submit, unsigned wait) {
  return syscall(SYS_io_uring_enter, r->fd, submit, wait, IORING_ENTER_GETEVENTS, NULL, 0);
}

// The next entry, `ahead` of the tail that the kernel sees.
__attribute__((unused)) static struct io_uring_sqe* ring_entry(struct ring* r, unsigned ahead, int opcode,
                                                               uint64_t user_data) {
  const unsigned at = (ring_get(r, r->params.sq_off.tail) + ahead) & (r->params.sq_entries - 1);
  struct io_uring_sqe* e = (struct io_uring_sqe*)(r->entries + at * r->stride);
  memset(e, 0, r->stride);
  e->opcode = (uint8_t)opcode;
  e->user_data = user_data;
  if (!(r->params.flags & kNoArray)) ring_word(r, r->params.sq_off.array)[at] = at;
  return e;
}
__attribute__((unused)) static void ring_publish(struct ring* r, unsigned count) {
  __atomic_store_n(ring_word(r, r->params.sq_off.tail), ring_get(r, r->params.sq_off.tail) + count, __ATOMIC_RELEASE);
}

__attribute__((unused)) static unsigned ring_unread(const struct ring* r) {
  return ring_get(r, r->params.cq_off.tail) - ring_get(r, r->params.cq_off.head);
}
__attribute__((unused)) static const struct io_uring_cqe* ring_peek(const struct ring* r, unsigned ahead) {
  const unsigned at = (ring_get(r, r->params.cq_off.head) + ahead) & (r->params.cq_entries - 1);
  return (const struct io_uring_cqe*)(r->area + r->params.cq_off.cqes + at * r->completion_bytes);
}
__attribute__((unused)) static void ring_take(struct ring* r, unsigned count) {
  __atomic_store_n(ring_word(r, r->params.cq_off.head), ring_get(r, r->params.cq_off.head) + count, __ATOMIC_RELEASE);
}

// `count` requests that do nothing, one by one; their completions are taken.
__attribute__((unused)) static void ring_turn(struct ring* r, unsigned count) {
  for (unsigned i = 0; i < count; ++i) {
    ring_entry(r, 0, IORING_OP_NOP, i);
    ring_publish(r, 1);
    REQUIRE(ring_enter(r, 1, 1) == 1 && ring_unread(r) == 1);
    ring_take(r, 1);
  }
}
