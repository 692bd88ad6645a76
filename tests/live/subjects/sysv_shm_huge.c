// A System V segment of huge pages: attached as a whole and, by another process, in part.
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>

#include "subject.h"

enum { kHuge = 2 << 20 };

static int segment;
static char* whole;

static void check_page_size(const char* area) {
  FILE* smaps = fopen("/proc/self/smaps", "re");
  char line[512];
  bool here = false;
  int kib = 0;
  while (fgets(line, sizeof line, smaps) != NULL) {
    unsigned long start, end;
    if (sscanf(line, "%lx-%lx ", &start, &end) == 2) here = start <= (uintptr_t)area && (uintptr_t)area < end;
    if (here) sscanf(line, "KernelPageSize: %d", &kib);
  }
  fclose(smaps);
  CHECK(kib == kHuge >> 10, "the pages have %d KiB", kib);
}

static void check(char* last) {
  CHECK(page_holds(whole + kPageBytes, 1) && page_holds(last, 2), "the contents are other ones");
  CHECK(page_is_zero(whole + kHuge), "the middle holds something");
  check_page_size(whole);
  check_page_size(last);
}

static void child(void) {
  char* last = whole + 2 * kHuge;
  REQUIRE(munmap(whole + kHuge, kHuge) == 0 && mprotect(last, kHuge, PROT_READ) == 0);
  subject_write_file("child", "ready\n");
  while (subject_next()) {
    CHECK(page_holds(whole + kPageBytes, 1) && page_holds(last, 2), "the contents are other ones");
    CHECK(*(volatile char*)(whole + 7) == 'p', "the child does not see what its parent has");
    whole[8] = 'c';
    check_page_size(last);
    subject_part("child");
  }
  _exit(subject_status());
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  segment = shmget(IPC_PRIVATE, 3 * kHuge, IPC_CREAT | SHM_HUGETLB | 21 << 26 | 0600);
  if (segment < 0) subject_skip("six MiB of huge pages (vm.nr_hugepages)");
  whole = shmat(segment, NULL, 0);
  REQUIRE(whole != (void*)-1 && shmctl(segment, IPC_RMID, NULL) == 0);
  fill_page(whole + kPageBytes, 1);
  fill_page(whole + 2 * kHuge, 2);
  whole[7] = 'p';
  pid_t pid = fork();
  REQUIRE(pid >= 0);
  if (pid == 0) child();
  char text[16];
  REQUIRE(WAIT_UNTIL(subject_read_file(subject_path("child"), text, sizeof text) > 0));
  for (subject_ready(); subject_next(); subject_verdict()) {
    check(whole + 2 * kHuge);
    subject_collect("child");
    CHECK(whole[8] == 'c', "the parent does not see what its child wrote");
    struct shmid_ds now = {0};
    CHECK(shmctl(segment, IPC_STAT, &now) == 0 && now.shm_segsz == 3 * kHuge, "the segment cannot be looked at");
    CHECK((now.shm_perm.mode & SHM_DEST) != 0, "it is not marked for destruction");
    subject_join(pid);
    if (subject_last) CHECK(shmdt(whole) == 0 && shmctl(segment, IPC_STAT, &now) != 0, "it does not go away");
  }
  return subject_status();
}
