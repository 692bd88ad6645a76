// Stacks of filters that a child and a grandchild inherit and add to, and threads with different stacks: none in the
// leader, one that two threads share, another on top of it. What was common must still be: the last check puts a filter
// on all threads at once, which the kernel does only if their stacks are parts of one.
#include <linux/seccomp.h>
#include <pthread.h>

#include "seccomp_probe.h"
#include "subject.h"

enum { kA = 1001, kB, kC, kTwice, kAll };  // numbers of calls that no kernel has

static _Atomic int go, done;
static _Atomic int leave;

struct expectation {
  const char* who;
  int a, b, c, twice;
};

static const struct expectation kSecond = {"second", EAGAIN, EBUSY, ENOSYS, EEXIST};

static void check_filters(const struct expectation* e) {
  const int all = leave > 0 ? EXDEV : ENOSYS;
  if (leave > 0) e = &kSecond;  // all threads have the filters of the one that made them equal
  CHECK(probe(kA) == e->a && probe(kB) == e->b && probe(kC) == e->c, "%s: the filters answer %d, %d, %d", e->who,
        probe(kA), probe(kB), probe(kC));
  // Of two equal answers that of the filter installed last counts.
  CHECK(probe(kTwice) == e->twice, "%s: the order of the filters changed: %d", e->who, probe(kTwice));
  CHECK(probe(kAll) == all, "%s: the filter of all threads answers %d", e->who, probe(kAll));
}

static void wait_for_turn(int turn) {
  while (go < turn) sleep_ms(1);
}

static void* second(void* unused) {  // cloned by the first: [A, twice 1], then [A, twice 1, B, twice 2]
  (void)unused;
  REQUIRE(add_filter(kB, SECCOMP_RET_ERRNO | EBUSY, 0) == 0);
  REQUIRE(add_filter(kTwice, SECCOMP_RET_ERRNO | EEXIST, SECCOMP_FILTER_FLAG_LOG) == 0);
  done++;
  for (int turn = 1;; turn++) {
    wait_for_turn(turn);
    check_filters(&kSecond);
    if (leave == -1) {
      int failed = add_filter(kAll, SECCOMP_RET_ERRNO | EXDEV, SECCOMP_FILTER_FLAG_TSYNC);
      CHECK(failed == 0, "a filter for all threads: %d, errno %d", failed, errno);
      leave = 1;
    }
    done++;
  }
  return NULL;
}

static void* third(void* unused) {  // cloned by the first: [A, twice 1]
  (void)unused;
  static const struct expectation expected = {"third", EAGAIN, ENOSYS, ENOSYS, EPERM};
  done++;
  for (int turn = 1;; turn++) {
    wait_for_turn(turn);
    check_filters(&expected);
    done++;
  }
  return NULL;
}

static void* first(void* unused) {
  (void)unused;
  REQUIRE(add_filter(kA, SECCOMP_RET_ERRNO | EAGAIN, 0) == 0);
  REQUIRE(add_filter(kTwice, SECCOMP_RET_ERRNO | EPERM, 0) == 0);
  pthread_t thread;
  REQUIRE(pthread_create(&thread, NULL, second, NULL) == 0 && pthread_create(&thread, NULL, third, NULL) == 0);
  static const struct expectation expected = {"first", EAGAIN, ENOSYS, ENOSYS, EPERM};
  done++;
  for (int turn = 1;; turn++) {
    wait_for_turn(turn);
    check_filters(&expected);
    done++;
  }
  return NULL;
}

// Threads and leader of one process; `inherited` is what the process had before.
static void check_process(const struct expectation* leader, int turn) {
  check_filters(leader);
  go = turn;
  CHECK(WAIT_UNTIL(done >= 3), "the threads do not answer");
  done = 0;
  if (!subject_last) return;
  leave = -1;
  go = turn + 1;
  CHECK(WAIT_UNTIL(done >= 3 && leave == 1), "the threads do not answer");
  done = 0;
  check_filters(leader);
  go = turn + 2;
  CHECK(WAIT_UNTIL(done >= 3), "the threads do not answer");
}

static void start_threads(void) {
  pthread_t thread;
  REQUIRE(pthread_create(&thread, NULL, first, NULL) == 0 && WAIT_UNTIL(done == 3));
  done = 0;
}

static void run_child(const char* tag, const struct expectation* expected, bool threads, pid_t grandchild) {
  if (threads) start_threads();
  subject_write_file(tag, "up\n");
  for (int turn = 1; subject_next(); turn++) {
    if (threads)
      check_process(expected, turn);
    else
      check_filters(expected);
    if (grandchild > 0) {
      subject_collect("grandchild");
      subject_join(grandchild);
    }
    subject_part(tag);
  }
  _exit(subject_status());
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  // The bare child has none; the parent adds its filters after that.
  pid_t bare = fork();
  REQUIRE(bare >= 0);
  if (bare == 0) {
    static const struct expectation none = {"bare child", ENOSYS, ENOSYS, ENOSYS, ENOSYS};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) die("no_new_privs");
    run_child("bare", &none, true, 0);
  }
  pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    REQUIRE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    REQUIRE(add_filter(kC, SECCOMP_RET_ERRNO | ENOLCK, 0) == 0);
    static const struct expectation with_c = {"child", ENOSYS, ENOSYS, ENOLCK, ENOSYS};
    static const struct expectation with_two = {"grandchild", ENOSYS, ENOSYS, ENOLCK, EROFS};
    pid_t grandchild = fork();
    REQUIRE(grandchild >= 0);
    if (grandchild == 0) {
      REQUIRE(add_filter(kTwice, SECCOMP_RET_ERRNO | EROFS, 0) == 0);
      run_child("grandchild", &with_two, false, 0);
    }
    run_child("child", &with_c, false, grandchild);
  }
  for (int i = 0; i < 3; i++) {
    static const char* const kTags[] = {"bare", "child", "grandchild"};
    REQUIRE(WAIT_UNTIL(access(subject_path(kTags[i]), F_OK) == 0));
  }
  for (subject_ready(); subject_next(); subject_verdict()) {
    CHECK(prctl(PR_GET_SECCOMP) == 0, "the parent has filters");
    subject_collect("bare");
    subject_collect("child");
    subject_join(bare);
    subject_join(child);
  }
  return subject_status();
}
