// Events of inotify that nobody has read: no image can hold them.
#include <sys/inotify.h>
#include <sys/ioctl.h>

#include "subject.h"

int main(int argc, char** argv) {
  subject_start(argc, argv);
  int notify = inotify_init1(IN_NONBLOCK);
  REQUIRE(notify >= 0 && mkdir(subject_path("watched"), 0700) == 0);
  REQUIRE(inotify_add_watch(notify, subject_path("watched"), IN_CREATE) == 1);
  REQUIRE(mkdir(subject_path("watched/a"), 0700) == 0);
  for (subject_ready(); subject_next(); subject_verdict()) {
    int bytes = 0;
    bool lossy = access(subject_path("lossy"), F_OK) == 0;  // the user has given them up
    int wanted = lossy ? 0 : (int)sizeof(struct inotify_event) + 16;
    CHECK(ioctl(notify, FIONREAD, &bytes) == 0 && bytes == wanted, "%d bytes", bytes);
  }
  return subject_status();
}
