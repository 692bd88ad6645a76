// A filter that asks another process what to answer: nobody can tell which listener belongs to it.
#include "seccomp_probe.h"
#include "subject.h"

int main(int argc, char** argv) {
  subject_start(argc, argv);
  REQUIRE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
  struct sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 1001, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog filter = {sizeof program / sizeof *program, program};
  long listener = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &filter);
  REQUIRE(listener >= 0);
  close((int)listener);
  for (subject_ready(); subject_next(); subject_verdict())
    CHECK(prctl(PR_GET_SECCOMP) == 2 && probe(1001) == ENOSYS, "the filter is gone");
  return subject_status();
}
