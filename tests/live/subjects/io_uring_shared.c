// A ring that a process and its child use by turns, another one whose owner is a thread, which has registered its
// descriptor.
#include <pthread.h>

#include "ring.h"

static struct ring shared, own;
static int asked, answered;  // rounds of the thread
static bool thread_ok;
static unsigned registered_at;

static void* run(void* nothing) {
  if (!ring_make(&own, 8, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN, 0)) {
    __atomic_store_n(&answered, -1, __ATOMIC_RELEASE);
    return nothing;
  }
  struct io_uring_rsrc_update update = {.offset = 3, .data = (uint64_t)own.fd};
  REQUIRE(syscall(SYS_io_uring_register, own.fd, IORING_REGISTER_RING_FDS, &update, 1) == 1);
  registered_at = update.offset;
  ring_turn(&own, 20);
  for (int round = 0;; ++round) {
    while (__atomic_load_n(&asked, __ATOMIC_ACQUIRE) == round) sleep_ms(kPollMs);
    ring_entry(&own, 0, IORING_OP_NOP, (uint64_t)round);
    ring_publish(&own, 1);
    thread_ok = syscall(SYS_io_uring_enter, registered_at, 1, 1,
                        IORING_ENTER_GETEVENTS | IORING_ENTER_REGISTERED_RING, NULL, 0) == 1 &&
                ring_unread(&own) == 1 && ring_peek(&own, 0)->user_data == (uint64_t)round;
    ring_take(&own, ring_unread(&own));
    __atomic_store_n(&answered, round + 1, __ATOMIC_RELEASE);
  }
}

static void turn(const char* who) {
  ring_entry(&shared, 0, IORING_OP_NOP, 42);
  ring_publish(&shared, 1);
  CHECK(ring_enter(&shared, 1, 1) == 1, "%s cannot submit", who);
  CHECK(ring_unread(&shared) == 1 && ring_peek(&shared, 0)->user_data == 42, "%s sees nothing", who);
  ring_take(&shared, ring_unread(&shared));
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  if (!ring_make(&shared, 4, 0, 0)) subject_skip("io_uring for this user");
  ring_turn(&shared, 10);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    while (subject_next()) {
      // After the parent, which tells by a file.
      char text[32];
      CHECK(WAIT_UNTIL(subject_read_file(subject_path("turn"), text, sizeof text) > 0 &&
                       atoi(text) == subject_generation),
            "the parent has no turn");
      turn("the child");
      subject_part("child");
    }
    _exit(subject_status());
  }
  pthread_t thread;
  REQUIRE(pthread_create(&thread, NULL, run, NULL) == 0);
  REQUIRE(WAIT_UNTIL(__atomic_load_n(&registered_at, __ATOMIC_ACQUIRE) != 0 || answered < 0));
  const bool has_own = answered >= 0;
  if (has_own) REQUIRE(WAIT_UNTIL(ring_get(&own, own.params.cq_off.head) == 20));
  for (subject_ready(); subject_next(); subject_verdict()) {
    turn("the parent");
    char text[32];
    snprintf(text, sizeof text, "%d\n", subject_generation);
    subject_write_file("turn", text);
    subject_collect("child");
    if (has_own) {
      const int round = __atomic_add_fetch(&asked, 1, __ATOMIC_ACQ_REL);
      CHECK(WAIT_UNTIL(__atomic_load_n(&answered, __ATOMIC_ACQUIRE) == round) && thread_ok, "the thread cannot submit");
    }
    subject_join(child);
  }
  return subject_status();
}
