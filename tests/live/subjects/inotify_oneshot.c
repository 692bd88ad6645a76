// A watch of inotify that acts once, has not acted yet, and is removed when it does.
#include <sys/inotify.h>

#include "subject.h"

int main(int argc, char** argv) {
  subject_start(argc, argv);
  int notify = inotify_init1(IN_NONBLOCK);
  REQUIRE(notify >= 0 && mkdir(subject_path("watched"), 0700) == 0);
  int wd = inotify_add_watch(notify, subject_path("watched"), IN_CREATE | IN_ONESHOT);
  REQUIRE(wd > 0);
  for (subject_ready(); subject_next(); subject_verdict()) {
    char text[1024];
    if (!subject_last) continue;
    CHECK(mkdir(subject_path("watched/a"), 0700) == 0 && mkdir(subject_path("watched/b"), 0700) == 0, "mkdir");
    ssize_t got = read(notify, text, sizeof text);
    struct inotify_event* event = (void*)text;
    CHECK(got > 0 && event->wd == wd && (event->mask & IN_CREATE) != 0 && strcmp(event->name, "a") == 0, "first event");
    struct inotify_event* next = (void*)(text + sizeof *event + event->len);
    CHECK(got == (ssize_t)(2 * sizeof *event + event->len) && next->mask == IN_IGNORED, "the watch is not removed");
  }
  return subject_status();
}
