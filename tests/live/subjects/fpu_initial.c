// Extended registers that are mostly in their initial state, which the processor does not store: MXCSR alone is set in
// one thread, and the status word of the x87 unit (with an exception that was met) in another.

#include "start_thread.h"
#include "subject.h"

#if !defined(__x86_64__)
int main(void) {
  subject_skip("the registers of this test are those of x86-64");
}
#else

enum { kZeroDivide = 4, kTruncate = 0x6000 };
static const uint32_t plain_mxcsr = 0x1f80;

struct holder {
  pthread_t thread;
  volatile int stop, answered;
  bool end;
  const char* failure;
};

static const char* hold_mxcsr(volatile int* stop) {
  uint32_t loaded = plain_mxcsr | kTruncate, found = 0;
  uint64_t words[2] = {1, 1};
  __asm__ volatile(
      "fninit\n pxor %%xmm0, %%xmm0\n pxor %%xmm9, %%xmm9\n ldmxcsr %[in]\n"
      "1: pause\n cmpl $0, (%[stop])\n je 1b\n"
      "stmxcsr %[out]\n movq %%xmm0, %[low]\n movq %%xmm9, %[high]\n ldmxcsr %[plain]\n"
      : [out] "=m"(found), [low] "=m"(words[0]), [high] "=m"(words[1])
      : [in] "m"(loaded), [stop] "r"(stop), [plain] "m"(plain_mxcsr)
      : "xmm0", "xmm9", "memory", "cc");
  if (found != loaded) return "mxcsr has changed";
  return words[0] == 0 && words[1] == 0 ? NULL : "the registers are not zero any more";
}

static const char* hold_status(volatile int* stop) {
  uint16_t status = 0, before = 0;
  uint32_t mxcsr = 0;
  __asm__ volatile(
      "fninit\n fld1\n fldz\n fdivrp\n fstp %%st(0)\n fnstsw %[before]\n"
      "1: pause\n cmpl $0, (%[stop])\n je 1b\n"
      "fnstsw %[after]\n stmxcsr %[mxcsr]\n fninit\n"
      : [before] "=m"(before), [after] "=m"(status), [mxcsr] "=m"(mxcsr)
      : [stop] "r"(stop)
      : "st", "st(1)", "memory", "cc");
  if ((before & kZeroDivide) == 0) return "nothing was divided by zero";
  if (status != before) return "the status word has changed";
  return mxcsr == plain_mxcsr ? NULL : "mxcsr is not that of a new thread";
}

static struct holder holders[2];

static void* hold(void* argument) {
  struct holder* holder = argument;
  do {
    holder->failure = holder == &holders[0] ? hold_mxcsr(&holder->stop) : hold_status(&holder->stop);
    holder->answered = 1;
    while (holder->answered) sleep_ms(1);
  } while (!holder->end);
  return NULL;
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  for (int i = 0; i < 2; i++) start_thread(&holders[i].thread, hold, &holders[i]);
  for (subject_ready(); subject_next(); subject_verdict())
    for (int i = 0; i < 2; i++) {
      struct holder* holder = &holders[i];
      holder->stop = 1;
      CHECK(WAIT_UNTIL(holder->answered), "thread %d does not leave its loop", i);
      CHECK(holder->failure == NULL, "thread %d: %s", i, holder->failure);
      holder->stop = 0;
      holder->end = subject_last;
      holder->answered = 0;
    }
  for (int i = 0; i < 2; i++) pthread_join(holders[i].thread, NULL);
  return subject_status();
}
#endif
