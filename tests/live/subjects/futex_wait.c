// Threads that wait without a timeout: none may wake by itself, and each must wake when it is told to.
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/syscall.h>

#include "subject.h"

static volatile uint32_t word;
static pthread_mutex_t held = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static sem_t semaphore;
static volatile int turn;       // the generation that may pass
static volatile int passed[4];  // the last generation that each waiter passed
static volatile int surprises;  // wake-ups nobody asked for, and EINTR
static volatile int at_work[4];

static void* futex_waiter(void* unused) {
  for (int next = 1;; next++) {
    at_work[0] = next;
    while (word < (uint32_t)next)
      if (syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, next - 1, NULL, NULL, 0) != 0 && errno != EAGAIN) surprises++;
    passed[0] = next;
  }
  return unused;
}
static void* condition_waiter(void* unused) {
  for (int next = 1;; next++) {
    pthread_mutex_lock(&guard);
    at_work[1] = next;
    while (turn < next) pthread_cond_wait(&condition, &guard);
    pthread_mutex_unlock(&guard);
    passed[1] = next;
  }
  return unused;
}
static void* semaphore_waiter(void* unused) {
  for (int next = 1;; next++) {
    at_work[2] = next;
    if (sem_wait(&semaphore) != 0) surprises++;
    passed[2] = next;
  }
  return unused;
}
static void* mutex_waiter(void* unused) {
  for (int next = 1;; next++) {
    at_work[3] = next;
    pthread_mutex_lock(&held);
    passed[3] = next;
    pthread_mutex_unlock(&held);
    while (turn > -next) sleep_ms(1);  // the main thread takes the mutex again before the next round
  }
  return unused;
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  void* (*const waiters[])(void*) = {futex_waiter, condition_waiter, semaphore_waiter, mutex_waiter};
  sem_init(&semaphore, 0, 0);
  pthread_mutex_lock(&held);
  for (int i = 0; i < 4; i++) {
    pthread_t thread;
    REQUIRE(pthread_create(&thread, NULL, waiters[i], NULL) == 0);
  }
  for (int i = 0; i < 4; i++) REQUIRE(WAIT_UNTIL(at_work[i] == 1));
  sleep_ms(20);

  int round = 0;
  for (subject_ready(); subject_next(); subject_verdict()) {
    for (int i = 0; i < 4; i++) CHECK(passed[i] == round, "waiter %d woke by itself", i);
    CHECK(surprises == 0, "%d waits ended without reason", surprises);
    round++;
    word = (uint32_t)round;
    CHECK(syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 10, NULL, NULL, 0) == 1, "nobody waited on the futex");
    pthread_mutex_lock(&guard);
    turn = round;
    pthread_cond_signal(&condition);
    pthread_mutex_unlock(&guard);
    sem_post(&semaphore);
    pthread_mutex_unlock(&held);
    for (int i = 0; i < 4; i++) CHECK(WAIT_UNTIL(passed[i] == round), "waiter %d does not wake", i);
    pthread_mutex_lock(&held);
    pthread_mutex_lock(&guard);
    turn = -round;
    pthread_mutex_unlock(&guard);
    CHECK(WAIT_UNTIL(at_work[0] == round + 1 && at_work[1] == round + 1 && at_work[2] == round + 1 &&
                     at_work[3] == round + 1),
          "a waiter does not wait again");
    sleep_ms(20);
  }
  return subject_status();
}
