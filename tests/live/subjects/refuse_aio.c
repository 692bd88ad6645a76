// A context of asynchronous I/O (io_setup(2)) with an event that was not collected.
#include <linux/aio_abi.h>
#include <sys/syscall.h>

#include "subject.h"

int main(int argc, char** argv) {
  subject_start(argc, argv);
  aio_context_t context = 0;
  if (syscall(SYS_io_setup, 16, &context) != 0) subject_skip("asynchronous I/O for this user");
  const int fd = open(subject_path("data"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  char text[] = "written";
  struct iocb request = {.aio_data = 4711,
                         .aio_lio_opcode = IOCB_CMD_PWRITE,
                         .aio_fildes = (uint32_t)fd,
                         .aio_buf = (uintptr_t)text,
                         .aio_nbytes = sizeof text};
  struct iocb* const requests[] = {&request};
  REQUIRE(fd >= 0 && syscall(SYS_io_submit, context, 1, requests) == 1);
  for (subject_ready(); subject_next(); subject_verdict()) {
    struct io_event event;
    CHECK(syscall(SYS_io_getevents, context, 1, 1, &event, NULL) == 1, "there is no event");
    CHECK(event.data == 4711 && event.res == sizeof text, "another event");
    CHECK(syscall(SYS_io_submit, context, 1, requests) == 1, "it does not work on");
  }
  return subject_status();
}
