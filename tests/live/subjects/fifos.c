// Named pipes: data, ends held by different tasks, an end alone.
#include <sys/ioctl.h>

#include "subject.h"

static int open_fifo(const char* name, int flags) {
  if (mkfifo(subject_path(name), 0620) != 0 && errno != EEXIST) die("mkfifo %s", name);
  int fd = open(subject_path(name), flags);
  if (fd < 0) die("open %s", name);
  return fd;
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  int both = open_fifo("both", O_RDWR);
  REQUIRE(write(both, "in flight", 9) == 9);
  int only_reader = open_fifo("reader", O_RDONLY | O_NONBLOCK);
  int to_child_writer = open_fifo("child", O_RDWR);
  int from_child = open_fifo("answer", O_RDWR);
  pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    close(both);
    close(only_reader);
    int in = open_fifo("child", O_RDONLY), out = open_fifo("answer", O_WRONLY);
    close(to_child_writer);
    close(from_child);
    subject_write_file("up", "up\n");
    for (char byte; read(in, &byte, 1) == 1 && byte != 'q';) {
      byte++;
      if (write(out, &byte, 1) != 1) _exit(1);
    }
    _exit(0);
  }
  REQUIRE(WAIT_UNTIL(access(subject_path("up"), F_OK) == 0));

  for (subject_ready(); subject_next(); subject_verdict()) {
    char text[32] = "";
    int waiting = 0;
    CHECK(ioctl(both, FIONREAD, &waiting) == 0 && waiting == 9, "%d bytes in flight", waiting);
    if (waiting == 9) CHECK(read(both, text, 9) == 9 && strcmp(text, "in flight") == 0, "content %s", text);
    CHECK(write(both, "in flight", 9) == 9, "putting it back");
    CHECK(read(only_reader, text, 1) == 0, "a fifo without writer is not at its end");
    CHECK(write(to_child_writer, "b", 1) == 1 && read(from_child, text, 1) == 1 && text[0] == 'c',
          "exchange with the child");
    struct stat info;
    CHECK(stat(subject_path("both"), &info) == 0 && S_ISFIFO(info.st_mode), "the fifo's name");
    if (subject_last) CHECK(write(to_child_writer, "q", 1) == 1, "ending the child");
    subject_join(child);
  }
  return subject_status();
}
