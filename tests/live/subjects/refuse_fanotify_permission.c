// A group of fanotify that is asked for permission: it cannot answer while its task stands still.
#include <sys/fanotify.h>

#include "subject.h"

int main(int argc, char** argv) {
  subject_start(argc, argv);
  int group = fanotify_init(FAN_CLASS_CONTENT | FAN_NONBLOCK, O_RDONLY);
  if (group < 0) subject_skip("fanotify");
  int made = open(subject_path("file"), O_RDWR | O_CREAT, 0600);
  REQUIRE(made >= 0 && fanotify_mark(group, FAN_MARK_ADD, FAN_OPEN_PERM, AT_FDCWD, subject_path("file")) == 0);
  for (subject_ready(); subject_next(); subject_verdict()) {
    struct fanotify_event_metadata event;
    CHECK(read(group, &event, sizeof event) == -1 && errno == EAGAIN, "an event");
  }
  return subject_status();
}
