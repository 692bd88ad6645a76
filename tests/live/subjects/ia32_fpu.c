// x87, MMX and SSE registers and their control words in a 32-bit program that holds them in a loop, without any call.
#include <pthread.h>

#include "subject.h"

#if !defined(__i386__)
int main(void) {
  subject_skip("a compiler and libraries for 32-bit programs");
}
#else

enum { kVectors = 8, kVectorBytes = 16, kRegisters = 4 };

static unsigned char wanted[kVectors][kVectorBytes] __attribute__((aligned(16)));
static unsigned char found[kVectors][kVectorBytes] __attribute__((aligned(16)));
static unsigned mxcsr = 0x3f80, mxcsr_found;           // rounds down
static unsigned short control = 0x0e7f, control_found;  // rounds to zero
static double stack_found[kRegisters];
static volatile int asked, answered, holding;
// ebx is kept: code that can lie anywhere finds its data by it.
static uint32_t general_found[3];

static void* hold(void* unused) {
  for (;;) {
    const int round = asked;
    __asm__ volatile(
        "ldmxcsr %[mxcsr]\n fninit\n fldcw %[control]\n fldpi\n fldl2e\n fldln2\n fld1\n"
        "movaps (%[in]), %%xmm0\n movaps 16(%[in]), %%xmm1\n movaps 32(%[in]), %%xmm2\n movaps 48(%[in]), %%xmm3\n"
        "movaps 64(%[in]), %%xmm4\n movaps 80(%[in]), %%xmm5\n movaps 96(%[in]), %%xmm6\n movaps 112(%[in]), %%xmm7\n"
        "movl $0x12345678, %%ecx\n movl $0x9abcdef0, %%edx\n movl $1, %[holding]\n stc\n"
        "1: pause\n movl %[asked], %%eax\n xorl %[round], %%eax\n jz 1b\n"
        "movl %%ecx, %[out]\n movl %%edx, 4+%[out]\n"
        : [holding] "=m"(holding), [out] "=o"(general_found)
        : [mxcsr] "m"(mxcsr), [control] "m"(control), [in] "r"(wanted), [asked] "m"(asked), [round] "r"(round)
        : "eax", "ecx", "edx", "memory");
    __asm__ volatile(
        "movaps %%xmm0, (%[out])\n movaps %%xmm1, 16(%[out])\n movaps %%xmm2, 32(%[out])\n movaps %%xmm3, 48(%[out])\n"
        "movaps %%xmm4, 64(%[out])\n movaps %%xmm5, 80(%[out])\n movaps %%xmm6, 96(%[out])\n movaps %%xmm7, 112(%[out])\n"
        "stmxcsr %[mxcsr]\n fnstcw %[control]\n fstpl (%[stack])\n fstpl 8(%[stack])\n fstpl 16(%[stack])\n fstpl 24(%[stack])\n"
        "fninit\n"
        : [mxcsr] "=m"(mxcsr_found), [control] "=m"(control_found)
        : [out] "r"(found), [stack] "r"(stack_found)
        : "memory");
    const unsigned usual = 0x1f80;
    __asm__ volatile("ldmxcsr %0" ::"m"(usual));
    holding = 0;
    answered = asked;
  }
  return unused;
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  for (int i = 0; i < kVectors; i++) memset(wanted[i], 0x11 * (i + 1), kVectorBytes);
  pthread_t thread;
  REQUIRE(pthread_create(&thread, NULL, hold, NULL) == 0);
  REQUIRE(WAIT_UNTIL(holding));
  for (subject_ready(); subject_next(); subject_verdict()) {
    asked++;
    CHECK(WAIT_UNTIL(answered == asked), "the thread does not leave its loop");
    CHECK(memcmp(wanted, found, sizeof wanted) == 0, "vector registers");
    CHECK((mxcsr_found & ~0x3fu) == mxcsr, "mxcsr %#x", mxcsr_found);
    CHECK(control_found == control, "x87 control word %#x", control_found);
    CHECK(stack_found[0] == 1.0 && stack_found[3] > 3.14159 && stack_found[3] < 3.1416, "x87 registers");
    CHECK(general_found[0] == 0x12345678 && general_found[1] == 0x9abcdef0, "general registers");
    CHECK(WAIT_UNTIL(holding), "the thread does not hold again");
  }
  return subject_status();
}
#endif
