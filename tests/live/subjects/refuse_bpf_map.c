// A BPF map of a kind that is not saved.
#include <linux/bpf.h>
#include <sys/syscall.h>

#include "subject.h"

int main(int argc, char** argv) {
  subject_start(argc, argv);
  union bpf_attr attr;
  memset(&attr, 0, sizeof attr);
  attr.map_type = BPF_MAP_TYPE_RINGBUF;
  attr.max_entries = 4096;
  const long fd = syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof attr);
  if (fd < 0) subject_skip("BPF ring buffers for this user");
  for (subject_ready(); subject_next(); subject_verdict()) CHECK(fcntl((int)fd, F_GETFD) >= 0, "the map is gone");
  return subject_status();
}
