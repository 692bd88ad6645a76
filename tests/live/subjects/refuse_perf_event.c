// A performance counter: what it has counted is in the kernel, and no call sets it.
#include <linux/perf_event.h>
#include <sys/syscall.h>

#include "subject.h"

int main(int argc, char** argv) {
  subject_start(argc, argv);
  struct perf_event_attr attributes = {.type = PERF_TYPE_SOFTWARE, .size = sizeof attributes, .config = PERF_COUNT_SW_TASK_CLOCK};
  int fd = (int)syscall(SYS_perf_event_open, &attributes, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
  if (fd < 0) subject_skip("performance events");
  uint64_t before = 0;
  for (subject_ready(); subject_next(); subject_verdict()) {
    uint64_t now = 0;
    CHECK(read(fd, &now, sizeof now) == sizeof now && now > before, "the counter stands at %lu", (unsigned long)now);
    before = now;
  }
  return subject_status();
}
