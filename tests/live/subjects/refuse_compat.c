// A 64-bit process one of whose threads is in the middle of 32-bit code: it cannot be saved.
#include <pthread.h>
#include <sys/mman.h>

#include "subject.h"

#if !defined(__x86_64__)
int main(void) {
  subject_skip("a processor that runs 32-bit code of x86");
}
#else

enum { kCode32 = 0x23, kCode64 = 0x33 };

// loop: pause; cmpl $0, stop; je loop; ljmp $kCode64, $back
static const unsigned char kSpin[] = {0xf3, 0x90, 0x83, 0x3d, 0, 0, 0, 0, 0, 0x74, 0xf5, 0xea, 0, 0, 0, 0, kCode64, 0};
// mov %r8, %rsp; ret: an interrupt of 32-bit code cuts the stack pointer.
static const unsigned char kReturn[] = {0x4c, 0x89, 0xc4, 0xc3};
enum { kStopAt = 4, kBackAt = 12, kReturnAt = 64 };

static volatile int* stop;
static volatile int inside;
static char* page;

// The far pointer through which the thread goes there.
static struct __attribute__((packed)) {
  uint32_t offset;
  uint16_t selector;
} entry;

static void* run_32_bit_code(void* unused) {
  inside = 1;
  __asm__ volatile(
      "leaq -128(%%rsp), %%rsp\n"
      // 32-bit code reaches memory through a data segment, 64-bit code needs none.
      "movl $0x2b, %%eax\n"
      "movl %%eax, %%ds\n"
      "call 1f\n"
      "jmp 2f\n"
      "1: movq %%rsp, %%r8\n"
      "ljmpl *%[entry]\n"
      "2: leaq 128(%%rsp), %%rsp\n"
      "xorl %%eax, %%eax\n"
      "movl %%eax, %%ds\n"
      :
      : [entry] "m"(entry)
      : "memory", "cc", "rax", "r8");
  return unused;
}

static void make_code(void) {
  page = mmap(NULL, 2 * kPageBytes, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
  REQUIRE(page != MAP_FAILED);
  stop = (volatile int*)(page + kPageBytes);
  memcpy(page, kSpin, sizeof kSpin);
  memcpy(page + kReturnAt, kReturn, sizeof kReturn);
  const uint32_t stop_address = (uint32_t)(uintptr_t)stop, back = (uint32_t)(uintptr_t)(page + kReturnAt);
  memcpy(page + kStopAt, &stop_address, sizeof stop_address);
  memcpy(page + kBackAt, &back, sizeof back);
  entry.offset = (uint32_t)(uintptr_t)page;
  entry.selector = kCode32;
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  make_code();
  pthread_t thread;
  REQUIRE(pthread_create(&thread, NULL, run_32_bit_code, NULL) == 0);
  REQUIRE(WAIT_UNTIL(inside));
  sleep_ms(20);
  for (subject_ready(); subject_next(); subject_verdict())
    CHECK(pthread_tryjoin_np(thread, NULL) == EBUSY, "the thread has left its loop");
  *stop = 1;
  REQUIRE(pthread_join(thread, NULL) == 0);
  return subject_status();
}
#endif
