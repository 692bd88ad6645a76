// State that only a 32-bit program has: the segments of its threads, its own robust list, frames of 32 bits for its
// signal handlers, its way into the kernel, an address space that ends below 4 GiB. Other tests of 32-bit programs are
// those of 64-bit ones, compiled for 32 bits.
#include <asm/ldt.h>
#include <pthread.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "subject.h"

#if !defined(__i386__)
int main(void) {
  subject_skip("a compiler and libraries for 32-bit programs");
}
#else

enum { kFirstSlot = 12, kSlots = 3, kSelectorBits = 3 };

static unsigned char segment[64] = "a segment of its own";
static _Thread_local int tls_value;
static volatile int handled, handled_value, sleeping;

// What a 32-bit frame holds: the handler reads and the return restores it.
static void on_info(int number, siginfo_t* info, void* context) {
  const ucontext_t* frame = context;
  handled = number;
  handled_value = info->si_value.sival_int;
  if ((frame->uc_mcontext.gregs[REG_CS] & 0xffff) != 0x23) handled_value = -1;
}
static void on_plain(int number) {
  handled = number;
}

// The first byte of a segment.
static int byte_of_segment(unsigned selector) {
  int byte = 0;
  __asm__ volatile("movl %%fs, %%ecx; movl %1, %%fs; movzbl %%fs:0, %0; movl %%ecx, %%fs"
                   : "=&r"(byte)
                   : "r"(selector)
                   : "ecx");
  return byte;
}

static unsigned add_segment(void) {
  struct user_desc d = {.entry_number = (unsigned)-1,
                        .base_addr = (unsigned)(uintptr_t)segment,
                        .limit = sizeof segment - 1,
                        .seg_32bit = 1,
                        .useable = 1};
  REQUIRE(syscall(SYS_set_thread_area, &d) == 0);
  return d.entry_number;
}

static void read_slots(struct user_desc* slots) {
  memset(slots, 0, kSlots * sizeof *slots);
  for (unsigned i = 0; i < kSlots; i++) {
    slots[i].entry_number = kFirstSlot + i;
    REQUIRE(syscall(SYS_get_thread_area, &slots[i]) == 0);
  }
}

static void get_robust_list(uint32_t* head, uint32_t* length) {
  REQUIRE(syscall(SYS_get_robust_list, 0, head, length) == 0);
}

struct thread_state {
  struct user_desc slots[kSlots];
  uint32_t robust_head, robust_length, selectors;
};

static uint32_t selectors(void) {
  unsigned fs, gs;
  __asm__("movl %%fs, %0; movl %%gs, %1" : "=r"(fs), "=r"(gs));
  return fs | gs << 16;
}

static void read_state(struct thread_state* s) {
  memset(s, 0, sizeof *s);
  read_slots(s->slots);
  get_robust_list(&s->robust_head, &s->robust_length);
  s->selectors = selectors();
}

static void check_state(const struct thread_state* was, unsigned own_slot, const char* who) {
  struct thread_state is;
  read_state(&is);
  CHECK(memcmp(was, &is, sizeof is) == 0, "%s: descriptors, robust list or selectors differ", who);
  if (own_slot != 0)
    CHECK(byte_of_segment(own_slot << 3 | kSelectorBits) == 'a', "%s: its segment shows other memory", who);
}

// A thread with a segment of its own beside that of the library, which never leaves the calls by int $0x80.
static volatile int round_asked, round_done, thread_good = 1;
static void* run_thread(void* unused) {
  struct thread_state state;
  const unsigned slot = add_segment();
  tls_value = 77;
  read_state(&state);
  sleeping = 1;
  for (int done = 0;; done = round_asked) {
    while (round_asked == done) {
      const int32_t time[2] = {0, 5000000};
      int result;
      __asm__ volatile("int $0x80" : "=a"(result) : "a"(162), "b"(time), "c"(0) : "memory");
      if (result != 0) thread_good = 0;
    }
    struct thread_state now;
    read_state(&now);
    if (memcmp(&state, &now, sizeof now) != 0 || tls_value != 77 || byte_of_segment(slot << 3 | kSelectorBits) != 'a')
      thread_good = 0;
    round_done = round_asked;
  }
  return unused;
}

static void check_handlers(void) {
  static char stack[65536];
  static bool has_stack;
  if (!has_stack) {
    const stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    REQUIRE(sigaltstack(&alternate, NULL) == 0);
    has_stack = true;
  }
  handled = handled_value = 0;
  const union sigval value = {.sival_int = 4711};
  CHECK(sigqueue(getpid(), SIGRTMIN + 1, value) == 0 && handled == SIGRTMIN + 1 && handled_value == 4711,
        "the handler with information: signal %d, value %d", handled, handled_value);
  CHECK(raise(SIGUSR1) == 0 && handled == SIGUSR1, "the plain handler: %d", handled);
  stack_t now;
  CHECK(sigaltstack(NULL, &now) == 0 && now.ss_sp == stack && now.ss_size == sizeof stack, "the alternate stack");
}

static void check_memory(void) {
  char* high = mmap(NULL, kPageBytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(high != MAP_FAILED, "a mapping anywhere");
  CHECK((uintptr_t)high > 0x80000000u, "mappings begin at %p", (void*)high);
  munmap(high, kPageBytes);
  // What may be read may not be executed, unless the program says so.
  char path[64], line[256];
  snprintf(path, sizeof path, "/proc/%d/personality", getpid());
  CHECK(subject_read_file(path, line, sizeof line) <= 0 || strtoul(line, NULL, 16) == 0, "personality %s", line);
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  const uintptr_t vdso = getauxval(AT_SYSINFO_EHDR), entry = getauxval(AT_SYSINFO);
  struct sigaction action = {.sa_sigaction = on_info, .sa_flags = SA_SIGINFO | SA_ONSTACK};
  REQUIRE(sigaction(SIGRTMIN + 1, &action, NULL) == 0);
  action = (struct sigaction){.sa_handler = on_plain};
  REQUIRE(sigaction(SIGUSR1, &action, NULL) == 0);
  check_handlers();
  const unsigned slot = add_segment();
  tls_value = 42;
  pthread_t thread;
  REQUIRE(pthread_create(&thread, NULL, run_thread, NULL) == 0);
  REQUIRE(WAIT_UNTIL(sleeping));
  struct thread_state state;
  read_state(&state);
  for (subject_ready(); subject_next(); subject_verdict()) {
    check_state(&state, slot, "main thread");
    CHECK(tls_value == 42, "a variable of the thread: %d", tls_value);
    check_handlers();
    check_memory();
    CHECK(getauxval(AT_SYSINFO_EHDR) == vdso && getauxval(AT_SYSINFO) == entry, "the vdso is elsewhere");
    CHECK(memcmp((const void*)vdso, "\177ELF\1", 5) == 0, "there is no vdso for 32 bits");
    round_asked++;
    CHECK(WAIT_UNTIL(round_done == round_asked) && thread_good, "the second thread");
  }
  return subject_status();
}
#endif
