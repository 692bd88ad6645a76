// The twenty threads under a filter that refuses every call but their own: among the refused ones are all that a
// checkpoint makes in a task, and those of the way home of a thread whose checkpoint was killed.
#define HEARTBEAT_SANDBOX
#include "heartbeat20.c"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

static void enter_sandbox(void) {
  // What a thread does before its first own instruction is not allowed any more.
  for (int i = 1; i < kThreads; i++) REQUIRE(WAIT_UNTIL(cells[i].count > 0));
  static const int kOwn[] = {SYS_nanosleep, SYS_clock_nanosleep, SYS_poll,   SYS_ppoll, SYS_restart_syscall,
                             SYS_openat,    SYS_read,            SYS_write,  SYS_close, SYS_rename,
                             SYS_access,    SYS_exit_group,      SYS_getpid, SYS_exit};
  enum { kOwnCount = sizeof kOwn / sizeof *kOwn };
  struct sock_filter program[2 * kOwnCount + 2];
  unsigned short length = 0;
  program[length++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
  for (size_t i = 0; i < kOwnCount; i++) {
    program[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)kOwn[i], 0, 1);
    program[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  }
  program[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
  struct sock_fprog filter = {length, program};
  REQUIRE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
  REQUIRE(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &filter) == 0);
}
