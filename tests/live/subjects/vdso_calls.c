// Functions of the vdso, looked up before: their addresses must go on being callable, and tell the truth.
#include <elf.h>
#include <link.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include "subject.h"

typedef int (*clock_gettime_fn)(clockid_t, struct timespec*);
typedef int (*gettimeofday_fn)(struct timeval*, void*);
typedef int (*clock_getres_fn)(clockid_t, struct timespec*);
typedef time_t (*time_fn)(time_t*);
typedef long (*getcpu_fn)(unsigned*, unsigned*, void*);
typedef ssize_t (*getrandom_fn)(void*, size_t, unsigned, void*, size_t);

struct dynamic_tables {
  const ElfW(Sym) * symbols;
  const char* names;
  const uint32_t* hash;
};

static struct dynamic_tables tables_of(uintptr_t base) {
  const ElfW(Ehdr)* header = (const ElfW(Ehdr)*)base;
  const ElfW(Phdr)* program = (const ElfW(Phdr)*)(base + header->e_phoff);
  struct dynamic_tables tables = {0};
  for (int i = 0; i < header->e_phnum; i++) {
    if (program[i].p_type != PT_DYNAMIC) continue;
    for (const ElfW(Dyn)* entry = (const ElfW(Dyn)*)(base + program[i].p_offset); entry->d_tag != DT_NULL; entry++) {
      if (entry->d_tag == DT_SYMTAB) tables.symbols = (const ElfW(Sym)*)(base + entry->d_un.d_ptr);
      if (entry->d_tag == DT_STRTAB) tables.names = (const char*)(base + entry->d_un.d_ptr);
      if (entry->d_tag == DT_HASH) tables.hash = (const uint32_t*)(base + entry->d_un.d_ptr);
    }
  }
  return tables;
}

// The vdso has no section that says how many symbols there are, but its names end where the strings do: walk until
// the wanted one is found, within a bound.
static uintptr_t vdso_symbol(const char* name) {
  uintptr_t base = getauxval(AT_SYSINFO_EHDR);
  if (base == 0) subject_skip("the kernel maps no vdso");
  struct dynamic_tables tables = tables_of(base);
  REQUIRE(tables.symbols != NULL && tables.names != NULL);
  uint32_t count = tables.hash != NULL ? tables.hash[1] : 16;
  for (uint32_t i = 0; i < count; i++)
    if (strcmp(tables.names + tables.symbols[i].st_name, name) == 0) return base + tables.symbols[i].st_value;
  return 0;
}
static uintptr_t needed_symbol(const char* name) {
  uintptr_t address = vdso_symbol(name);
  if (address == 0) die("the vdso has no %s", name);
  return address;
}

// State of the random number generator of Linux 6.11, in memory that the kernel may drop at any time.
struct random_state {
  getrandom_fn call;
  void* memory;
  size_t bytes;
};
static struct random_state random_state(void) {
  struct {
    uint32_t size_of_opaque_state, mmap_prot, mmap_flags, reserved[13];
  } params;
  struct random_state state = {.call = (getrandom_fn)vdso_symbol("__vdso_getrandom")};
  if (state.call == NULL || state.call(NULL, 0, 0, &params, ~(size_t)0) != 0) return (struct random_state){0};
  state.bytes = params.size_of_opaque_state;
  state.memory = mmap(NULL, kPageBytes, (int)params.mmap_prot, (int)params.mmap_flags, -1, 0);
  REQUIRE(state.memory != MAP_FAILED);
  return state;
}
static void check_random(struct random_state* state, unsigned char* before) {
  unsigned char now[32] = {0};
  ssize_t got = state->call(now, sizeof now, 0, state->memory, state->bytes);
  CHECK(got == sizeof now, "getrandom gives %zd", got);
  CHECK(memcmp(now, before, sizeof now) != 0, "getrandom repeats itself");
  memcpy(before, now, sizeof now);
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  clock_gettime_fn vdso_clock_gettime = (clock_gettime_fn)needed_symbol("__vdso_clock_gettime");
  gettimeofday_fn vdso_gettimeofday = (gettimeofday_fn)needed_symbol("__vdso_gettimeofday");
  getcpu_fn vdso_getcpu = (getcpu_fn)needed_symbol("__vdso_getcpu");
  clock_getres_fn vdso_clock_getres = (clock_getres_fn)needed_symbol("__vdso_clock_getres");
  time_fn vdso_time = (time_fn)needed_symbol("__vdso_time");
  struct random_state random = random_state();
  unsigned char drawn[32] = {0};
  if (random.call != NULL) check_random(&random, drawn);

  for (subject_ready(); subject_next(); subject_verdict()) {
    const clockid_t clocks[] = {CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_BOOTTIME, CLOCK_MONOTONIC_COARSE};
    for (size_t i = 0; i < sizeof clocks / sizeof *clocks; i++) {
      struct timespec fast, slow;
      CHECK(vdso_clock_gettime(clocks[i], &fast) == 0, "clock %d", clocks[i]);
      syscall(SYS_clock_gettime, clocks[i], &slow);
      double apart = (double)(slow.tv_sec - fast.tv_sec) + (double)(slow.tv_nsec - fast.tv_nsec) * 1e-9;
      CHECK(apart > -0.05 && apart < 1, "clock %d: vdso and kernel are %.6f s apart", clocks[i], apart);
    }
    struct timeval now;
    CHECK(vdso_gettimeofday(&now, NULL) == 0 && llabs(now.tv_sec - (long long)time(NULL)) <= 1, "gettimeofday");
    CHECK(llabs((long long)vdso_time(NULL) - now.tv_sec) <= 1, "time");
    struct timespec fine = {-1, -1}, slow;
    CHECK(vdso_clock_getres(CLOCK_MONOTONIC, &fine) == 0 && syscall(SYS_clock_getres, CLOCK_MONOTONIC, &slow) == 0 &&
              fine.tv_sec == slow.tv_sec && fine.tv_nsec == slow.tv_nsec,
          "clock_getres says %ld ns", fine.tv_nsec);
    if (random.call != NULL) check_random(&random, drawn);
    unsigned cpu = ~0u, node = ~0u;
    CHECK(vdso_getcpu(&cpu, &node, NULL) == 0 && cpu < 65536, "getcpu says %u", cpu);
    CHECK(sched_getcpu() >= 0, "libc's getcpu");
  }
  return subject_status();
}
