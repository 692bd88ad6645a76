// Functions of the vdso, looked up before: their addresses must go on being callable, and tell the truth.
#include <elf.h>
#include <link.h>
#include <sched.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include "subject.h"

typedef int (*clock_gettime_fn)(clockid_t, struct timespec*);
typedef int (*gettimeofday_fn)(struct timeval*, void*);
typedef long (*getcpu_fn)(unsigned*, unsigned*, void*);

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
  die("the vdso has no %s", name);
  return 0;
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  clock_gettime_fn vdso_clock_gettime = (clock_gettime_fn)vdso_symbol("__vdso_clock_gettime");
  gettimeofday_fn vdso_gettimeofday = (gettimeofday_fn)vdso_symbol("__vdso_gettimeofday");
  getcpu_fn vdso_getcpu = (getcpu_fn)vdso_symbol("__vdso_getcpu");

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
    unsigned cpu = ~0u, node = ~0u;
    CHECK(vdso_getcpu(&cpu, &node, NULL) == 0 && cpu < 65536, "getcpu says %u", cpu);
    CHECK(sched_getcpu() >= 0, "libc's getcpu");
  }
  return subject_status();
}
