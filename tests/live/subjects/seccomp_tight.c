// Filters that refuse calls which a checkpoint makes in the task: one thread gets EPERM for mmap, a
// child is killed for it. Neither may notice a dump.
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "subject.h"

static void forbid(const int* calls, size_t count, uint32_t action) {
  struct sock_filter program[32];
  unsigned short length = 0;
  program[length++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
  for (size_t i = 0; i < count; i++) {
    program[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)calls[i], 0, 1);
    program[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, action);
  }
  program[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  struct sock_fprog filter = {length, program};
  REQUIRE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
  REQUIRE(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter) == 0);
}
static const int kCalls[] = {SYS_mmap, SYS_munmap, SYS_memfd_create, SYS_getitimer, SYS_sigaltstack, SYS_tgkill};
enum { kCallCount = sizeof kCalls / sizeof *kCalls };

int main(int argc, char** argv) {
  subject_start(argc, argv);
  pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    forbid(kCalls, kCallCount, SECCOMP_RET_KILL_PROCESS);
    subject_write_file("child", "up\n");
    while (subject_next()) {
      CHECK(prctl(PR_GET_SECCOMP) == 2, "the filter is gone");
      subject_part("child");
    }
    _exit(subject_status());
  }
  REQUIRE(WAIT_UNTIL(access(subject_path("child"), F_OK) == 0));
  forbid(kCalls, kCallCount, SECCOMP_RET_ERRNO | EPERM);
  for (subject_ready(); subject_next(); subject_verdict()) {
    CHECK(prctl(PR_GET_SECCOMP) == 2, "the filter is gone");
    CHECK(mmap(NULL, kPageBytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED && errno == EPERM,
          "mmap is allowed");
    subject_collect("child");
    subject_join(child);
  }
  return subject_status();
}
