// A tree that changes while it is being stopped: processes that fork, exec and exit, and threads that come and go.
// Everything that fails, is lost or ends with a wrong status is counted in a file of the task that saw it.
#include <pthread.h>
#include <spawn.h>
#include <sys/mman.h>

#include "subject.h"

enum { kForkers = 3 };
struct score {
  volatile unsigned long forks, execs, threads, wrong;
};
static struct score* scores;  // shared between the tasks; one cell for each
static char self_path[PATH_MAX];
extern char** environ;

static void* short_thread(void* argument) {
  volatile int local = 7;
  return local == 7 ? argument : NULL;
}

static void one_thread(struct score* score) {
  pthread_t thread;
  void* value = NULL;
  if (pthread_create(&thread, NULL, short_thread, score) != 0 || pthread_join(thread, &value) != 0 || value != score)
    score->wrong++;
  score->threads++;
}
static void expect_exit(struct score* score, pid_t child, int code) {
  int status = 0;
  pid_t got;
  while ((got = waitpid(child, &status, 0)) < 0 && errno == EINTR) {
  }
  if (got != child || !WIFEXITED(status) || WEXITSTATUS(status) != code) score->wrong++;
}
static void one_fork(struct score* score) {
  int code = (int)(score->forks % 200);
  pid_t child = fork();
  if (child == 0) {
    pid_t grandchild = fork();
    if (grandchild == 0) _exit(3);
    int status = 0;
    if (grandchild < 0 || waitpid(grandchild, &status, 0) != grandchild || WEXITSTATUS(status) != 3) _exit(201);
    _exit(code);
  }
  if (child < 0)
    score->wrong++;
  else
    expect_exit(score, child, code);
  score->forks++;
}
static void one_exec(struct score* score) {
  char* const arguments[] = {self_path, "exit-with-5", NULL};
  pid_t child;
  if (posix_spawn(&child, self_path, NULL, NULL, arguments, environ) != 0)
    score->wrong++;
  else
    expect_exit(score, child, 5);
  score->execs++;
}

static void storm(struct score* score) {
  pid_t parent = getppid();
  for (;;) {
    one_thread(score);
    one_fork(score);
    one_exec(score);
    if (getppid() != parent || access(subject_path("stop"), F_OK) == 0) _exit(0);
  }
}

int main(int argc, char** argv) {
  if (argc == 2 && strcmp(argv[1], "exit-with-5") == 0) return 5;
  subject_start(argc, argv);
  REQUIRE(readlink("/proc/self/exe", self_path, sizeof self_path - 1) > 0);
  scores = mmap(NULL, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  REQUIRE(scores != MAP_FAILED);
  pid_t children[kForkers];
  for (int i = 0; i < kForkers; i++) {
    children[i] = fork();
    REQUIRE(children[i] >= 0);
    if (children[i] == 0) storm(&scores[i]);
  }
  for (int i = 0; i < kForkers; i++) REQUIRE(WAIT_UNTIL(scores[i].execs > 0));

  for (subject_ready(); subject_next(); subject_verdict()) {
    for (int i = 0; i < kForkers; i++) {
      unsigned long execs = scores[i].execs;
      CHECK(WAIT_UNTIL(scores[i].execs > execs + 1), "task %d stands still", i);
      CHECK(scores[i].wrong == 0, "task %d: %lu things went wrong", i, scores[i].wrong);
    }
    if (!subject_last) continue;
    subject_write_file("stop", "\n");
    for (int i = 0; i < kForkers; i++) subject_join(children[i]);
  }
  return subject_status();
}
