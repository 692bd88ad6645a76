// Programs that write all the time and would notice a memory image that is not of one moment: each page is checked
// before it is written, private memory against shared memory, and a pipe between two processes against both. Beside
// them, areas that a fork leaves out or empties.
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include "subject.h"

enum { kAreaPages = 1024, kThreads = 2 };

struct shared {
  volatile uint64_t written[kThreads];  // by each process, what its first thread has counted in private memory
  volatile uint64_t wrong;
  volatile uint64_t rounds[2 * kThreads];
};

static struct shared* shared;
static int process;  // 0, 1
static int channel[2];
static volatile uint64_t counted;

static char* map(size_t pages, int flags) {
  char* area = mmap(NULL, pages * kPageBytes, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | flags, -1, 0);
  REQUIRE(area != MAP_FAILED);
  return area;
}

// The first of process 0 sends what the first of process 1 receives.
static void talk(uint64_t round) {
  uint64_t number = round;
  if (process == 0) {
    REQUIRE(write(channel[1], &number, sizeof number) == sizeof number);
  } else {
    REQUIRE(read(channel[0], &number, sizeof number) == sizeof number);
    if (number != round) shared->wrong = 1;
  }
}

static void* work(void* argument) {
  const long thread = (long)argument;
  char* area = map(kAreaPages, MAP_PRIVATE);
  madvise(area, kAreaPages * (size_t)kPageBytes, MADV_NOHUGEPAGE);
  for (uint64_t round = 1;; round++) {
    for (size_t i = 0; i < kAreaPages; i++) {
      volatile uint64_t* first = (uint64_t*)(area + i * kPageBytes);
      volatile uint64_t* last = first + kPageBytes / sizeof *first - 1;
      if (*first != round - 1 || *last != round - 1) shared->wrong = 2;
      *first = round;
      *last = round;
      if (thread == 0) {
        if (shared->written[process] != counted) shared->wrong = 3;
        counted++;
        shared->written[process] = counted;
      }
    }
    if (thread == 0) talk(round);
    shared->rounds[process * kThreads + thread] = round;
  }
  return NULL;
}

static void start(void) {
  for (long i = 0; i < kThreads; i++) {
    pthread_t thread;
    REQUIRE(pthread_create(&thread, NULL, work, (void*)i) == 0);
  }
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  shared = (struct shared*)map(1, MAP_SHARED);
  REQUIRE(pipe(channel) == 0);
  char* left_out = map(4, MAP_PRIVATE);
  char* emptied = map(4, MAP_PRIVATE);
  memset(left_out, 'd', 4 * kPageBytes);
  memset(emptied, 'w', 4 * kPageBytes);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    process = 1;
  }
  // After the fork, so that both have them.
  REQUIRE(madvise(left_out, 4 * kPageBytes, MADV_DONTFORK) == 0);
  REQUIRE(madvise(emptied, 4 * kPageBytes, MADV_WIPEONFORK) == 0);
  start();
  if (process == 1)
    for (;;) pause();

  for (int i = 0; i < 2 * kThreads; i++)
    while (shared->rounds[i] < 2) sleep_ms(1);
  uint64_t before[2 * kThreads];
  for (subject_ready(); subject_next(); subject_verdict()) {
    memcpy(before, (const void*)shared->rounds, sizeof before);
    for (int waited = 0, moved = 0; moved < 2 * kThreads && waited < kPatienceMs; waited++, sleep_ms(1)) {
      moved = 0;
      for (int i = 0; i < 2 * kThreads; i++) moved += shared->rounds[i] > before[i] + 1;
    }
    for (int i = 0; i < 2 * kThreads; i++) CHECK(shared->rounds[i] > before[i] + 1, "writer %d stands still", i);
    CHECK(shared->wrong == 0, "the memory is of several moments (%d)", (int)shared->wrong);
    for (size_t i = 0; i < 4 * kPageBytes; i++) {
      CHECK(left_out[i] == 'd', "byte %zu of the area that a fork leaves out is %d", i, left_out[i]);
      CHECK(emptied[i] == 'w', "byte %zu of the area that a fork empties is %d", i, emptied[i]);
    }
    CHECK(waitpid(-1, NULL, __WALL | WNOHANG) == 0, "there is a dead child");
  }
  kill(child, SIGKILL);
  waitpid(child, NULL, 0);
  return subject_status();
}
