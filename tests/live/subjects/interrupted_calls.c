// Calls that the kernel ends with EINTR, or begins again as a whole, when a task is stopped: to their callers nothing
// may have happened. Those without a limit wait until they get what they wait for; those with one wait no longer in
// total than they were asked to.
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ipc.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/syscall.h>

#include "subject.h"

enum { kWaitMs = 3000, kBeforeMs = 1500, kToleranceMs = 500 };

static int semaphores;  // System V: 0 is given by the main thread, nobody ever gives 1
static int pipe_ends[2];
static volatile uint32_t futex_word;

// A set outlives a subject that is killed: the next one removes what is left of those that are gone.
static int make_semaphores(void) {
  enum { kTag = 0x51000000, kTagMask = 0x7f800000 };
  FILE* list = fopen("/proc/sysvipc/sem", "re");
  REQUIRE(list != NULL);
  char line[256];
  int key, id;
  while (fgets(line, sizeof line, list) != NULL)
    if (sscanf(line, "%d %d", &key, &id) == 2 && (key & kTagMask) == kTag && kill(key & ~kTagMask, 0) != 0)
      semctl(id, 0, IPC_RMID);
  fclose(list);
  return semget(kTag | getpid(), 2, IPC_CREAT | 0600);
}

static void only(sigset_t* set, int number) {
  sigemptyset(set);
  sigaddset(set, number);
}
static struct timespec limit(void) {
  return (struct timespec){kWaitMs / 1000, kWaitMs % 1000 * 1000000l};
}

// ---- without a limit: each call succeeds once in a round, or its waiter says what it got instead ----

static int wait_for_signal(void) {
  sigset_t set;
  siginfo_t info;
  only(&set, SIGRTMIN + 1);
  return sigwaitinfo(&set, &info) == SIGRTMIN + 1 ? 0 : errno;
}
static int wait_for_semaphore(void) {
  struct sembuf take = {0, -1, 0};
  return semop(semaphores, &take, 1) == 0 ? 0 : errno;
}
static int wait_in_select(void) {
  fd_set set;
  FD_ZERO(&set);
  FD_SET(pipe_ends[0], &set);
  return select(pipe_ends[0] + 1, &set, NULL, NULL, NULL) == 1 ? 0 : errno;
}
static int wait_in_poll(void) {
  struct pollfd fd = {pipe_ends[0], POLLIN, 0};
  return poll(&fd, 1, -1) == 1 ? 0 : errno;
}
static int wait_in_ppoll(void) {
  struct pollfd fd = {pipe_ends[0], POLLIN, 0};
  sigset_t set;
  only(&set, SIGUSR2);
  return ppoll(&fd, 1, NULL, &set) == 1 ? 0 : errno;
}

// ---- with a limit: each call runs into it ----

static int limited_signal(void) {
  sigset_t set;
  siginfo_t info;
  struct timespec most = limit();
  only(&set, SIGRTMIN + 2);
  return sigtimedwait(&set, &info, &most) < 0 && errno == EAGAIN ? 0 : errno;
}
static int limited_poll(void) {
  return poll(NULL, 0, kWaitMs) == 0 ? 0 : errno;
}
static int limited_ppoll(void) {
  struct timespec most = limit();
  return ppoll(NULL, 0, &most, NULL) == 0 ? 0 : errno;
}
static int limited_select(void) {
  struct timeval most = {kWaitMs / 1000, kWaitMs % 1000 * 1000};
  return select(0, NULL, NULL, NULL, &most) == 0 ? 0 : errno;
}
static int limited_pselect(void) {
  struct timespec most = limit();
  return pselect(0, NULL, NULL, NULL, &most, NULL) == 0 ? 0 : errno;
}
static int limited_futex(void) {
  struct timespec most = limit();
  return syscall(SYS_futex, &futex_word, FUTEX_WAIT_PRIVATE, 0, &most, NULL, 0) < 0 && errno == ETIMEDOUT ? 0 : errno;
}
static int limited_sleep(void) {
  struct timespec amount = limit();
  return clock_nanosleep(CLOCK_MONOTONIC, 0, &amount, NULL);
}
static int limited_semaphore(void) {
  struct sembuf take = {1, -1, 0};
  struct timespec most = limit();
  return semtimedop(semaphores, &take, 1, &most) < 0 && errno == EAGAIN ? 0 : errno;
}

static struct waiter {
  const char* name;
  int (*wait)(void);
  bool limited;
  double latest_s;  // 0: within the tolerance
  volatile int begun, done, error;
  volatile double took_s;
} waiters[] = {
    {.name = "sigwaitinfo", .wait = wait_for_signal},
    {.name = "semop", .wait = wait_for_semaphore},
    {.name = "select", .wait = wait_in_select},
    {.name = "poll", .wait = wait_in_poll},
    {.name = "ppoll", .wait = wait_in_ppoll},
    {.name = "sigtimedwait with a limit", .wait = limited_signal, .limited = true},
    {.name = "poll with a limit", .wait = limited_poll, .limited = true},
    {.name = "ppoll with a limit", .wait = limited_ppoll, .limited = true},
    {.name = "select with a limit", .wait = limited_select, .limited = true},
    {.name = "pselect with a limit", .wait = limited_pselect, .limited = true},
    {.name = "futex with a limit", .wait = limited_futex, .limited = true},
    {.name = "clock_nanosleep", .wait = limited_sleep, .limited = true},
    // Its caller's memory has no room for another limit: a restored call may begin again as a whole.
    {.name = "semtimedop with a limit", .wait = limited_semaphore, .limited = true, .latest_s = 2 * kWaitMs / 1000.0},
};
enum { kWaiters = sizeof waiters / sizeof *waiters };
static volatile int round_number;

static void* waiting(void* argument) {
  struct waiter* w = argument;
  for (int next = 1;; next++) {
    while (round_number < next) sleep_ms(1);
    double begun_s = clock_s(CLOCK_MONOTONIC);
    w->begun = next;
    w->error = w->wait();
    w->took_s = clock_s(CLOCK_MONOTONIC) - begun_s;
    w->done = next;
  }
  return NULL;
}

static void begin_round(void) {
  round_number++;
  for (int i = 0; i < kWaiters; i++) REQUIRE(WAIT_UNTIL(waiters[i].begun == round_number));
  sleep_ms(kBeforeMs);  // a part of each limit is over when the checkpoint comes
}

static void check_unlimited(void) {
  for (int i = 0; i < kWaiters; i++)
    if (!waiters[i].limited)
      CHECK(waiters[i].done < round_number, "%s ended by itself (%d)", waiters[i].name, waiters[i].error);
  kill(getpid(), SIGRTMIN + 1);
  struct sembuf give = {0, 1, 0};
  semop(semaphores, &give, 1);
  char byte = 'x';
  CHECK(write(pipe_ends[1], &byte, 1) == 1, "write");
  for (int i = 0; i < kWaiters; i++)
    if (!waiters[i].limited)
      CHECK(WAIT_UNTIL(waiters[i].done == round_number) && waiters[i].error == 0, "%s: done %d, error %d",
            waiters[i].name, waiters[i].done, waiters[i].error);
  CHECK(read(pipe_ends[0], &byte, 1) == 1, "read");
}

static void check_limited(void) {
  for (int i = 0; i < kWaiters; i++) {
    struct waiter* w = &waiters[i];
    if (!w->limited) continue;
    CHECK(WAIT_UNTIL(w->done == round_number), "%s does not end", w->name);
    CHECK(w->error == 0, "%s: error %d", w->name, w->error);
    double most_s = w->latest_s != 0 ? w->latest_s : kWaitMs / 1000.0;
    CHECK(w->took_s > kWaitMs / 1000.0 - 0.002, "%s took only %.3f s", w->name, w->took_s);
    CHECK(w->took_s < most_s + kToleranceMs / 1000.0, "%s took %.3f s", w->name, w->took_s);
  }
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  sigset_t set;
  sigfillset(&set);
  REQUIRE(sigprocmask(SIG_SETMASK, &set, NULL) == 0 && pipe(pipe_ends) == 0);
  REQUIRE((semaphores = make_semaphores()) >= 0);
  for (int i = 0; i < kWaiters; i++) {
    pthread_t thread;
    REQUIRE(pthread_create(&thread, NULL, waiting, &waiters[i]) == 0);
  }
  begin_round();
  for (subject_ready(); subject_next(); subject_verdict()) {
    check_unlimited();
    check_limited();
    if (subject_last)
      semctl(semaphores, 0, IPC_RMID);
    else
      begin_round();
  }
  return subject_status();
}
