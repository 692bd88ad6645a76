// Restartable sequences: what threads have registered stays registered, with every size and signature; one that stands
// inside a critical section goes on at its abort handler.
#include <pthread.h>
#include <sys/mman.h>
#include <sys/rseq.h>
#include <sys/syscall.h>

#include "subject.h"

#if !defined(__x86_64__)
int main(void) {
  subject_skip("the critical section of this test is written for x86-64");
}
#else

enum { kUnregister = 1, kAreaBytes = 256 };

struct member {
  pthread_t thread;
  char* area;
  uint32_t size, signature;
  volatile int state;  // 0: set up, 1: stands still or spins, 2: asked, 3: answered, 4: to end
  volatile long aborts;
  volatile long leave;
  const char* failure;
};

static char* own_area(void) {
  return (char*)__builtin_thread_pointer() + __rseq_offset;
}

static long rseq(void* area, uint32_t size, int flags, uint32_t signature) {
  return syscall(SYS_rseq, area, size, flags, signature);
}

// A loop inside of a critical section; the abort handler counts and begins anew, until it is told to leave.
static void spin_in_section(struct member* member) {
  __asm__ volatile(
      "jmp 3f\n"
      ".pushsection .data, \"aw\"\n"
      ".balign 32\n"
      "1: .long 0, 0\n"
      ".quad 4f, 5f - 4f, 6f\n"
      ".popsection\n"
      ".byte 0x0f, 0xb9, 0x3d\n"
      ".long 0x1badc0de\n"  // the signature, which the kernel wants before the abort handler
      "6: incq (%[aborts])\n"
      "cmpq $0, (%[leave])\n"
      "jne 5f\n"
      "3: leaq 1b(%%rip), %%rax\n"
      "movq %%rax, 8(%[area])\n"
      "4: pause\n"
      "jmp 4b\n"
      "5:\n"
      "movq $0, 8(%[area])\n"
      :
      : [area] "r"(member->area), [aborts] "r"(&member->aborts), [leave] "r"(&member->leave)
      : "rax", "memory", "cc");
}

// The kernel knows the area if it says EBUSY to the same again, and EINVAL or EPERM to another one.
static const char* registration(const struct member* member) {
  if (rseq(member->area, member->size, 0, member->signature) != -1 || errno != EBUSY) return "it is not registered";
  if (rseq(member->area, member->size, 0, member->signature + 1) != -1 || errno != EPERM) return "wrong signature";
  if (rseq(member->area, member->size + 32, 0, member->signature) != -1 || errno != EINVAL) return "wrong size";
  const uint32_t cpu = *(volatile uint32_t*)(member->area + 4);
  return cpu < 65536 ? NULL : "the kernel does not write the processor into it";
}

static void take_registration(struct member* member) {
  REQUIRE(__rseq_size != 0);
  REQUIRE(rseq(own_area(), 32, kUnregister, RSEQ_SIG) == 0);
  member->area = aligned_alloc(kAreaBytes, kAreaBytes);
  REQUIRE(member->area != NULL);
  memset(member->area, 0, kAreaBytes);
  if (rseq(member->area, member->size, 0, member->signature) != 0) {
    member->size = 32;  // Linux before 6.3 knows one size
    REQUIRE(rseq(member->area, member->size, 0, member->signature) == 0);
  }
}

static void* wait_for_questions(void* argument) {
  struct member* member = argument;
  take_registration(member);
  for (;;) {
    member->state = 1;
    while (member->state == 1) sleep_ms(1);
    if (member->state == 4) return NULL;
    member->failure = registration(member);
    member->state = 3;
    while (member->state == 3) sleep_ms(1);
  }
}

static void* spin(void* argument) {
  struct member* member = argument;
  take_registration(member);
  for (;;) {
    member->leave = 0;
    member->state = 1;
    spin_in_section(member);
    if (member->state == 4) return NULL;
    member->failure = registration(member);
    member->state = 3;
    while (member->state == 3) sleep_ms(1);
  }
}

static struct member quiet = {.size = 64, .signature = 0x12345678};
static struct member spinning = {.size = 32, .signature = 0x1badc0de};

static void ask(struct member* member, const char* who, int question) {
  member->leave = 1;
  member->state = question;
  if (question == 4) {
    pthread_join(member->thread, NULL);
    return;
  }
  CHECK(WAIT_UNTIL(member->state == 3), "%s gives no answer", who);
  CHECK(member->failure == NULL, "%s: %s", who, member->failure);
  member->state = 0;
  CHECK(WAIT_UNTIL(member->state == 1), "%s does not go on", who);
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  if (__rseq_size == 0) subject_skip("restartable sequences");
  const struct member leader = {.area = own_area(), .size = 32, .signature = RSEQ_SIG};
  REQUIRE(registration(&leader) == NULL);
  REQUIRE(pthread_create(&quiet.thread, NULL, wait_for_questions, &quiet) == 0);
  REQUIRE(pthread_create(&spinning.thread, NULL, spin, &spinning) == 0);
  REQUIRE(WAIT_UNTIL(quiet.state == 1 && spinning.state == 1));
  for (subject_ready(); subject_next(); subject_verdict()) {
    const char* failure = registration(&leader);
    CHECK(failure == NULL, "leader: %s", failure);
    // Only the abort handler looks whether it is to leave: without it the thread would spin for ever.
    ask(&quiet, "quiet thread", 2);
    ask(&spinning, "spinning thread", 2);
  }
  ask(&quiet, "quiet thread", 4);
  ask(&spinning, "spinning thread", 4);
  return subject_status();
}
#endif
