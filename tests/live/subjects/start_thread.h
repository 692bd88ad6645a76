// A thread of which it is known that it runs. One that was just made still blocks every signal (the C library lets it
// begin so), which a record of the state taken at that moment would take for its own choice.
#pragma once

#include <pthread.h>
#include <semaphore.h>

#include "subject.h"

struct thread_start {
  void* (*run)(void*);
  void* argument;
  sem_t begun;
};

static void* run_thread_start(void* argument) {
  struct thread_start* start = argument;
  void* (*run)(void*) = start->run;
  void* own = start->argument;
  sem_post(&start->begun);
  return run(own);
}

static void start_thread(pthread_t* thread, void* (*run)(void*), void* argument) {
  struct thread_start* start = malloc(sizeof *start);  // left to the subject's end: the waiter's last look may be late
  REQUIRE(start != NULL && sem_init(&start->begun, 0, 0) == 0);
  start->run = run;
  start->argument = argument;
  REQUIRE(pthread_create(thread, NULL, run_thread_start, start) == 0);
  while (sem_wait(&start->begun) != 0) {
  }
}
