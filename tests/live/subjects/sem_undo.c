// What is given back to System V semaphores when a process or thread ends (SEM_UNDO): a lock that is held, counts that
// were raised and lowered, in threads that share it and in one that does not. Seen when they end.
#include <pthread.h>
#include <sched.h>
#include <sys/ipc.h>
#include <sys/sem.h>

#include "subject.h"

// More semaphores than one call takes.
enum { kLock, kRaised, kLowered, kPlain, kThread = 250, kUnused, kSemaphores = 300 };
static int set;
static pthread_barrier_t ready;
static volatile bool thread_may_end;

static void operate(int semaphore, int by, int flags) {
  struct sembuf operation = {.sem_num = (unsigned short)semaphore, .sem_op = (short)by, .sem_flg = (short)flags};
  REQUIRE(semop(set, &operation, 1) == 0);
}

static void check_value(int semaphore, int wanted, const char* when) {
  int value = semctl(set, semaphore, GETVAL);
  CHECK(value == wanted, "semaphore %d is %d and not %d %s", semaphore, value, wanted, when);
}

static void* own_list(void* unused) {
  (void)unused;
  REQUIRE(unshare(CLONE_SYSVSEM) == 0);
  operate(kThread, -2, SEM_UNDO);
  pthread_barrier_wait(&ready);
  while (!thread_may_end) sleep_ms(kPollMs);
  return NULL;
}
static void* shared_list(void* unused) {
  (void)unused;
  operate(kRaised, 700, SEM_UNDO);
  operate(kRaised, -33, SEM_UNDO);
  pthread_barrier_wait(&ready);
  for (;;) sleep_ms(1000);
  return NULL;
}

static void check_values(void) {
  check_value(kLock, 0, "while it is locked");
  check_value(kRaised, 667, "while it is raised");
  check_value(kLowered, 20000 - 12345, "while it is lowered");
  check_value(kPlain, 4, "without anything to undo");
  check_value(kThread, 3, "while the thread has some of it");
  check_value(kUnused, 7, "unused");
}

static void child(void) {
  operate(kLock, -1, SEM_UNDO);
  operate(kLowered, -12345, SEM_UNDO);
  operate(kPlain, 1, 0);
  pthread_barrier_init(&ready, NULL, 3);
  pthread_t threads[2];
  REQUIRE(pthread_create(&threads[0], NULL, own_list, NULL) == 0);
  REQUIRE(pthread_create(&threads[1], NULL, shared_list, NULL) == 0);
  pthread_barrier_wait(&ready);
  subject_write_file("child", "ready\n");
  while (subject_next()) {
    check_values();
    if (subject_last) {
      thread_may_end = true;
      pthread_join(threads[0], NULL);
      // The kernel lets it be joined a little earlier.
      CHECK(WAIT_UNTIL(semctl(set, kThread, GETVAL) == 5), "the end of the thread gives nothing back");
      check_value(kLock, 0, "when another thread has ended");
    }
    subject_part("child");
  }
  _exit(subject_status());
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  set = semget(IPC_PRIVATE, kSemaphores, IPC_CREAT | 0600);
  if (set < 0 && errno == ENOSYS) subject_skip("System V semaphores");
  REQUIRE(set >= 0);
  unsigned short first[kSemaphores] = {[kLock] = 1, [kLowered] = 20000, [kPlain] = 3, [kThread] = 5, [kUnused] = 7};
  REQUIRE(semctl(set, 0, SETALL, first) == 0);
  pid_t pid = fork();
  REQUIRE(pid >= 0);
  if (pid == 0) child();
  char text[32];
  REQUIRE(WAIT_UNTIL(subject_read_file(subject_path("child"), text, sizeof text) > 0));
  snprintf(text, sizeof text, "%d", set);
  subject_write_file("set", text);
  for (subject_ready(); subject_next(); subject_verdict()) {
    subject_collect("child");
    subject_join(pid);
    if (!subject_last) {
      check_values();
      continue;
    }
    check_value(kLock, 1, "at the end");
    check_value(kRaised, 0, "at the end");
    check_value(kLowered, 20000, "at the end");
    check_value(kPlain, 4, "at the end");
    CHECK(semctl(set, 0, IPC_RMID) == 0, "the set cannot be removed");
  }
  return subject_status();
}
