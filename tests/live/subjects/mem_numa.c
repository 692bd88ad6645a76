// NUMA policies of mappings, in a process and in a child that has other ones.
#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "subject.h"

enum { kAreas = 6, kAreaPages = 4 };
struct policy {
  int mode;
  unsigned long nodes;
};
static struct policy wanted[kAreas] = {{MPOL_DEFAULT, 0},
                                       {MPOL_BIND, 1},
                                       {MPOL_PREFERRED, 1},
                                       {MPOL_INTERLEAVE | MPOL_F_STATIC_NODES, 1},
                                       {MPOL_LOCAL, 0},
                                       {MPOL_BIND | MPOL_F_RELATIVE_NODES, 1}};
static char* areas[kAreas];

static struct policy policy_at(const void* address) {
  struct policy out = {-1, 0};
  unsigned long nodes[64] = {0};
  if (syscall(SYS_get_mempolicy, &out.mode, nodes, sizeof nodes * 8, address, MPOL_F_ADDR) == 0) out.nodes = nodes[0];
  return out;
}

static long bind_area(void* address, size_t bytes, struct policy p) {
  return syscall(SYS_mbind, address, bytes, p.mode, p.nodes != 0 ? &p.nodes : NULL, p.nodes != 0 ? 65ul : 0ul, 0);
}

static void check(void) {
  for (int i = 0; i < kAreas; i++)
    for (int page = 1; page < kAreaPages - 1; page++) {
      struct policy now = policy_at(areas[i] + page * kPageBytes);
      CHECK(now.mode == wanted[i].mode && now.nodes == wanted[i].nodes, "area %d has mode %#x nodes %#lx, not %#x %#lx", i,
            (unsigned)now.mode, now.nodes, (unsigned)wanted[i].mode, wanted[i].nodes);
      CHECK(page_holds(areas[i] + page * kPageBytes, (uint64_t)(i * kAreaPages + page)), "area %d lost a page", i);
    }
  for (int i = 0; i < kAreas; i++)
    CHECK(policy_at(areas[i]).mode == MPOL_DEFAULT, "the first page of area %d has a policy", i);
}

static void child(void) {
  struct policy other = {MPOL_INTERLEAVE, 1};
  REQUIRE(bind_area(areas[1] + kPageBytes, (kAreaPages - 2) * kPageBytes, other) == 0);
  wanted[1] = other;
  subject_write_file("child", "ready\n");
  while (subject_next()) {
    check();
    subject_part("child");
  }
  _exit(subject_status());
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  if (policy_at(&areas).mode < 0) subject_skip("NUMA policies (CONFIG_NUMA)");
  for (int i = 0; i < kAreas; i++) {
    int flags = i == 2 ? MAP_SHARED | MAP_ANONYMOUS : MAP_PRIVATE | MAP_ANONYMOUS;
    areas[i] = mmap(NULL, kAreaPages * kPageBytes, PROT_READ | PROT_WRITE, flags, -1, 0);
    REQUIRE(areas[i] != MAP_FAILED);
    // The middle only: the kernel cuts the mapping in three.
    if (wanted[i].mode != MPOL_DEFAULT)
      REQUIRE(bind_area(areas[i] + kPageBytes, (kAreaPages - 2) * kPageBytes, wanted[i]) == 0);
    for (int page = 0; page < kAreaPages; page++)
      fill_page(areas[i] + page * kPageBytes, (uint64_t)(i * kAreaPages + page));
  }
  pid_t pid = fork();
  REQUIRE(pid >= 0);
  if (pid == 0) child();
  char text[16];
  REQUIRE(WAIT_UNTIL(subject_read_file(subject_path("child"), text, sizeof text) > 0));
  for (subject_ready(); subject_next(); subject_verdict()) {
    check();
    subject_collect("child");
    subject_join(pid);
  }
  return subject_status();
}
