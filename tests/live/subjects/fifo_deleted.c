// A fifo that was deleted, with data in flight, and ends that meet in it.
#include <sys/ioctl.h>

#include "subject.h"

int main(int argc, char** argv) {
  subject_start(argc, argv);
  REQUIRE(mkfifo(subject_path("fifo"), 0640) == 0 && chmod(subject_path("fifo"), 0642) == 0);
  int reader = open(subject_path("fifo"), O_RDONLY | O_NONBLOCK), writer = open(subject_path("fifo"), O_WRONLY);
  int second = open(subject_path("fifo"), O_RDONLY);
  REQUIRE(reader >= 0 && write(writer, "in flight", 9) == 9 && second >= 0 && unlink(subject_path("fifo")) == 0);
  for (subject_ready(); subject_next(); subject_verdict()) {
    char text[32] = "";
    struct stat info;
    CHECK(fstat(reader, &info) == 0 && S_ISFIFO(info.st_mode) && (info.st_mode & 07777) == 0642 && info.st_nlink == 0,
          "mode %o, %d names", info.st_mode, (int)info.st_nlink);
    CHECK(read(reader, text, 4) == 4 && read(second, text + 4, 20) == 5 && strcmp(text, "in flight") == 0, "data %s", text);
    CHECK(write(writer, "in flight", 9) == 9, "putting it back");
    CHECK(access(subject_path("fifo"), F_OK) != 0, "its name is back");
  }
  return subject_status();
}
