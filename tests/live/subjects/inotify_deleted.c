// inotify with a watch of a file that was deleted and is open, and one of the directory where it was: the restore,
// which makes the file for a moment, is not seen.
#include <sys/inotify.h>
#include <sys/ioctl.h>

#include "subject.h"

int main(int argc, char** argv) {
  subject_start(argc, argv);
  REQUIRE(mkdir(subject_path("directory"), 0700) == 0);
  int file = open(subject_path("directory/deleted"), O_RDWR | O_CREAT, 0600), notify = inotify_init1(IN_NONBLOCK);
  REQUIRE(file >= 0 && write(file, "text", 4) == 4 && unlink(subject_path("directory/deleted")) == 0);
  char name[64];
  snprintf(name, sizeof name, "/proc/self/fd/%d", file);
  int of_file = inotify_add_watch(notify, name, IN_MODIFY | IN_ATTRIB);
  int of_directory = inotify_add_watch(notify, subject_path("directory"), IN_CREATE | IN_DELETE | IN_MOVE);
  REQUIRE(of_file == 1 && of_directory == 2);
  for (subject_ready(); subject_next(); subject_verdict()) {
    int bytes = -1;
    CHECK(ioctl(notify, FIONREAD, &bytes) == 0 && bytes == 0, "%d bytes of events of the checkpoint itself", bytes);
    struct inotify_event event = {0};
    CHECK(pwrite(file, "T", 1, 0) == 1 && read(notify, &event, sizeof event) == sizeof event && event.wd == of_file &&
              event.mask == IN_MODIFY,
          "the deleted file: event %#x of %d", event.mask, event.wd);
  }
  return subject_status();
}
