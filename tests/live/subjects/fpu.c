// Extended registers held in a loop that makes no system call, in the leader and in a further thread: the x87
// stack and control word, MXCSR, SSE, and AVX or AVX-512 registers where the CPU has them.
//
// A third thread talks to the driver; the holders only look at a word in memory.
#include <stddef.h>

#include "start_thread.h"
#include "subject.h"

#if !defined(__x86_64__)
int main(void) {
  subject_skip("the registers of this test are those of x86-64");
}
#else

struct extended {
  unsigned char vectors[32][64];
  uint64_t masks[8];
  double stack[4];
  uint32_t mxcsr;
  uint16_t control_word;
};

struct holder {
  pthread_t thread;
  uint64_t salt;
  volatile int stop;
  volatile int stored;
  struct extended loaded, found;
};

enum { kSse, kAvx, kAvx512 };
static int vector_kind(void) {
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")) return kAvx512;
  return __builtin_cpu_supports("avx2") ? kAvx : kSse;
}
static int vector_count(int kind) {
  return kind == kAvx512 ? 32 : 16;
}
static size_t vector_bytes(int kind) {
  return kind == kAvx512 ? 64 : kind == kAvx ? 32 : 16;
}

#define X87_AND_MXCSR_LOAD                                    \
  "fninit\n fldcw %c[cw](%[in])\n ldmxcsr %c[mxcsr](%[in])\n" \
  "fldl %c[st]+0(%[in])\n fldl %c[st]+8(%[in])\n fldl %c[st]+16(%[in])\n fldl %c[st]+24(%[in])\n"
#define SPIN "1: pause\n cmpl $0, (%[stop])\n je 1b\n"
#define X87_AND_MXCSR_STORE                                                                               \
  "fnstcw %c[cw](%[out])\n stmxcsr %c[mxcsr](%[out])\n"                                                   \
  "fstpl %c[st]+24(%[out])\n fstpl %c[st]+16(%[out])\n fstpl %c[st]+8(%[out])\n fstpl %c[st]+0(%[out])\n" \
  "fninit\n ldmxcsr %[plain]\n"
#define FOR_16(insn, reg, side)                                                                                  \
  EACH(insn, reg, side, 0)                                                                                       \
  EACH(insn, reg, side, 1) EACH(insn, reg, side, 2) EACH(insn, reg, side, 3) EACH(insn, reg, side, 4)            \
      EACH(insn, reg, side, 5) EACH(insn, reg, side, 6) EACH(insn, reg, side, 7) EACH(insn, reg, side, 8)        \
          EACH(insn, reg, side, 9) EACH(insn, reg, side, 10) EACH(insn, reg, side, 11) EACH(insn, reg, side, 12) \
              EACH(insn, reg, side, 13) EACH(insn, reg, side, 14) EACH(insn, reg, side, 15)
#define EACH(insn, reg, side, n) side(insn, reg, n)
#define LOAD(insn, reg, n) insn " " #n "*64(%[in]), %%" reg #n "\n"
#define STORE(insn, reg, n) insn " %%" reg #n ", " #n "*64(%[out])\n"
#define FOR_UPPER_16(insn, reg, side)                                                                         \
  side(insn, reg, 16) side(insn, reg, 17) side(insn, reg, 18) side(insn, reg, 19) side(insn, reg, 20)         \
      side(insn, reg, 21) side(insn, reg, 22) side(insn, reg, 23) side(insn, reg, 24) side(insn, reg, 25)     \
          side(insn, reg, 26) side(insn, reg, 27) side(insn, reg, 28) side(insn, reg, 29) side(insn, reg, 30) \
              side(insn, reg, 31)
#define MASK_LOAD(n) "kmovq %c[k]+" #n "*8(%[in]), %%k" #n "\n"
#define MASK_STORE(n) "kmovq %%k" #n ", %c[k]+" #n "*8(%[out])\n"
#define FOR_MASKS(side) side(0) side(1) side(2) side(3) side(4) side(5) side(6) side(7)
#define HOLD(load_vectors, store_vectors)                                                                              \
  __asm__ volatile(X87_AND_MXCSR_LOAD load_vectors SPIN store_vectors X87_AND_MXCSR_STORE                              \
                   :                                                                                                   \
                   : [in] "r"(&holder->loaded), [out] "r"(&holder->found), [stop] "r"(&holder->stop),                  \
                     [cw] "i"(offsetof(struct extended, control_word)), [mxcsr] "i"(offsetof(struct extended, mxcsr)), \
                     [st] "i"(offsetof(struct extended, stack)), [k] "i"(offsetof(struct extended, masks)),            \
                     [plain] "m"(plain_mxcsr)                                                                          \
                   : "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",   \
                     "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "st", "st(1)", "st(2)", "st(3)", "st(4)",   \
                     "st(5)", "st(6)", "st(7)")

static void hold_once(struct holder* holder) {
  static const uint32_t plain_mxcsr = 0x1f80;
  switch (vector_kind()) {
    case kAvx512:
      HOLD(FOR_16("vmovdqu64", "zmm", LOAD) FOR_UPPER_16("vmovdqu64", "zmm", LOAD) FOR_MASKS(MASK_LOAD),
           FOR_16("vmovdqu64", "zmm", STORE) FOR_UPPER_16("vmovdqu64", "zmm", STORE)
               FOR_MASKS(MASK_STORE) "vzeroupper\n");
      break;
    case kAvx:
      HOLD(FOR_16("vmovdqu", "ymm", LOAD), FOR_16("vmovdqu", "ymm", STORE) "vzeroupper\n");
      break;
    default:
      HOLD(FOR_16("movdqu", "xmm", LOAD), FOR_16("movdqu", "xmm", STORE));
  }
}

static void* hold(void* argument) {
  struct holder* holder = argument;
  struct extended* loaded = &holder->loaded;
  for (int i = 0; i < 32; i++)
    for (int k = 0; k < 64; k++) loaded->vectors[i][k] = (unsigned char)(holder->salt + (uint64_t)(i * 67 + k));
  for (int i = 0; i < 8; i++) loaded->masks[i] = holder->salt * 0x0123456789abcdefu + (uint64_t)i;
  for (int i = 0; i < 4; i++) loaded->stack[i] = (double)holder->salt + i / 8.0;
  loaded->mxcsr = 0x1f80 | 0x6000 | 0x8000;  // round towards zero, flush to zero: not what a program starts with
  loaded->control_word = 0x037f | 0x0c00;
  do {
    holder->stop = 0;
    holder->stored = 0;
    memset(&holder->found, 0, sizeof holder->found);
    hold_once(holder);
    holder->stored = 1;
    while (holder->stored == 1) sleep_ms(1);
  } while (holder->stored != 3);
  return NULL;
}

static void check_holder(struct holder* holder, const char* who) {
  holder->stop = 1;
  CHECK(WAIT_UNTIL(holder->stored == 1), "%s does not leave its loop", who);
  const struct extended *loaded = &holder->loaded, *found = &holder->found;
  int kind = vector_kind();
  for (int i = 0; i < vector_count(kind); i++)
    CHECK(memcmp(loaded->vectors[i], found->vectors[i], vector_bytes(kind)) == 0, "%s: vector register %d", who, i);
  for (int i = 0; kind == kAvx512 && i < 8; i++) CHECK(loaded->masks[i] == found->masks[i], "%s: mask %d", who, i);
  for (int i = 0; i < 4; i++) CHECK(loaded->stack[i] == found->stack[i], "%s: x87 register %d", who, i);
  CHECK((found->mxcsr & ~0x3fu) == loaded->mxcsr, "%s: mxcsr %#x", who, found->mxcsr);
  CHECK(found->control_word == loaded->control_word, "%s: x87 control word %#x", who, found->control_word);
  holder->stored = subject_last ? 3 : 2;
  if (!subject_last) CHECK(WAIT_UNTIL(holder->stored == 0), "%s does not hold again", who);
}

static struct holder holders[2] = {{.salt = 11}, {.salt = 77}};

static void* talk(void* unused) {
  for (subject_ready(); subject_next(); subject_verdict()) {
    check_holder(&holders[0], "leader");
    check_holder(&holders[1], "thread");
  }
  return unused;
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  pthread_t talker;
  start_thread(&holders[1].thread, hold, &holders[1]);
  start_thread(&talker, talk, NULL);
  hold(&holders[0]);
  pthread_join(talker, NULL);
  pthread_join(holders[1].thread, NULL);
  return subject_status();
}
#endif
