// Twenty threads, each raising a counter of its own in a file that others can map: a watcher sees at once when one
// of them stops, and for how long. Layout of `beats`: 20 cells of 64 bytes, {u64 count; u64 wrong}.
#include <poll.h>
#include <sys/mman.h>

#include "start_thread.h"
#include "subject.h"

enum { kThreads = 20 };
struct cell {
  volatile uint64_t count;
  volatile uint64_t wrong;  // calls that came back as they must not, registers or memory that changed
  char pad[48];
};
static struct cell* cells;
#ifdef HEARTBEAT_SANDBOX
static void enter_sandbox(void);
#endif
#ifdef HEARTBEAT_TERMINAL
static void fill_terminal(void);
static void check_terminal(void);
#endif
static int pipe_ends[2];

static void* beat(void* argument) {
  struct cell* cell = argument;
  long index = cell - cells;
  uint64_t own = cell->count;
  for (;;) {
    struct timespec nap = {0, 2000000}, left;
    switch (index % 4) {
      case 0:
        cell->wrong += nanosleep(&nap, &left) != 0;
        break;
      case 1:
        cell->wrong += poll(NULL, 0, 2) != 0;
        break;
      case 2: {
        struct pollfd waiting = {pipe_ends[0], POLLIN, 0};
        cell->wrong += ppoll(&waiting, 1, &nap, NULL) != 0;
        break;
      }
      default:
        for (volatile int spin = 0; spin < 20000; spin = spin + 1) {
        }
        cell->wrong += clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL) != 0;
    }
    own++;
    cell->count++;
    if (cell->count != own) cell->wrong++;
  }
  return NULL;
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  int fd = open(subject_path("beats"), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  REQUIRE(fd >= 0 && ftruncate(fd, kPageBytes) == 0 && pipe(pipe_ends) == 0);
  cells = mmap(NULL, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  REQUIRE(cells != MAP_FAILED);
  close(fd);
  for (int i = 1; i < kThreads; i++) {
    pthread_t thread;
    start_thread(&thread, beat, &cells[i]);
  }
#ifdef HEARTBEAT_SANDBOX
  enter_sandbox();
#endif
#ifdef HEARTBEAT_TERMINAL
  fill_terminal();
#endif
  uint64_t seen[kThreads];
  for (subject_ready();;) {  // the leader is one of the twenty
    struct timespec nap = {0, 2000000}, left;
    cells[0].wrong += nanosleep(&nap, &left) != 0;
    cells[0].count++;
    if (!subject_asked()) continue;
    for (int i = 1; i < kThreads; i++) seen[i] = cells[i].count;
    for (int i = 1; i < kThreads; i++) CHECK(WAIT_UNTIL(cells[i].count > seen[i]), "thread %d stands still", i);
    for (int i = 0; i < kThreads; i++)
      CHECK(cells[i].wrong == 0, "thread %d: %lu calls went wrong", i, (unsigned long)cells[i].wrong);
#ifdef HEARTBEAT_TERMINAL
    check_terminal();
#endif
    subject_verdict();
    if (subject_last) return subject_status();
  }
}
