// Open regular files: position and flags belong to the description, close-on-exec to the descriptor; what shares a
// description goes on sharing it, what was opened apart stays apart.
#include <linux/kcmp.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "subject.h"

static bool same_description(pid_t a, int fd_a, pid_t b, int fd_b) {
  return syscall(SYS_kcmp, a, b, KCMP_FILE, fd_a, fd_b) == 0;
}

enum { kHigh = 1000 };
static int first, duplicate, separate, append, nonblock, direct, path_only, directory, read_only, read_write_only, high, highest;

static int open_or_die(const char* path, int flags) {
  int fd = open(path, flags, 0640);
  if (fd < 0) die("cannot open %s", path);
  return fd;
}

static void open_all(int last_number) {
  first = open_or_die(subject_path("a"), O_RDWR | O_CREAT);
  REQUIRE(write(first, "0123456789abcdefghij", 20) == 20 && lseek(first, 5, SEEK_SET) == 5);
  duplicate = fcntl(first, F_DUPFD_CLOEXEC, 50);
  separate = open_or_die(subject_path("a"), O_RDONLY | O_CLOEXEC);
  append = open_or_die(subject_path("odd name\n\\ \xff%s"), O_WRONLY | O_CREAT | O_APPEND);
  REQUIRE(write(append, "x", 1) == 1);
  nonblock = open_or_die(subject_path("a"), O_RDONLY | O_NONBLOCK | O_NOATIME);
  direct = open(subject_path("a"), O_RDONLY | O_DIRECT);  // -1 where the file system has no direct I/O
  path_only = open_or_die(subject_path("a"), O_PATH);
  directory = open_or_die(subject_dir, O_RDONLY | O_DIRECTORY);
  read_only = open_or_die(subject_path("readonly"), O_RDONLY | O_CREAT);
  read_write_only = open_or_die(subject_path("sync"), O_WRONLY | O_CREAT | O_DSYNC);
  REQUIRE(fchmod(read_only, 0) == 0);  // a mode under which it could not be opened again without privilege
  high = dup2(separate, kHigh);
  highest = dup2(separate, last_number);  // nothing fits above it
  REQUIRE(highest == last_number);
  REQUIRE(duplicate >= 50 && high == kHigh && lseek(separate, 3, SEEK_SET) == 3);
  REQUIRE(lseek(read_write_only, 1l << 33, SEEK_SET) == 1l << 33);  // a position beyond the end, above 32 bits
}

static void check_flags(int fd, int status_flags, int descriptor_flags, off_t position) {
  int ignored = O_LARGEFILE | 0100000;
  CHECK((fcntl(fd, F_GETFL) & ~ignored) == (status_flags & ~ignored), "fd %d: flags %#o", fd,
        (unsigned)fcntl(fd, F_GETFL));
  CHECK(fcntl(fd, F_GETFD) == descriptor_flags, "fd %d: close-on-exec", fd);
  if (position >= 0) CHECK(lseek(fd, 0, SEEK_CUR) == position, "fd %d: position %ld", fd, (long)lseek(fd, 0, SEEK_CUR));
}

static void check_all(pid_t child) {
  check_flags(first, O_RDWR, 0, 5);
  check_flags(duplicate, O_RDWR, FD_CLOEXEC, 5);
  check_flags(separate, O_RDONLY, FD_CLOEXEC, 3);
  check_flags(high, O_RDONLY, 0, 3);
  check_flags(append, O_WRONLY | O_APPEND, 0, -1);
  check_flags(nonblock, O_RDONLY | O_NONBLOCK | O_NOATIME, 0, 0);
  if (direct >= 0) check_flags(direct, O_RDONLY | O_DIRECT, 0, 0);
  check_flags(path_only, O_PATH, 0, -1);
  check_flags(directory, O_RDONLY | O_DIRECTORY, 0, -1);
  check_flags(read_only, O_RDONLY, 0, 0);
  check_flags(read_write_only, O_WRONLY | O_DSYNC, 0, 1l << 33);
  CHECK(read(path_only, &child, 0) == -1 && errno == EBADF, "an O_PATH descriptor can be read");

  pid_t self = getpid();
  CHECK(same_description(self, first, self, duplicate), "dup lost its description");
  CHECK(same_description(self, first, child, first), "the child lost the shared description");
  CHECK(same_description(self, separate, self, high), "the high descriptor lost its description");
  CHECK(same_description(self, separate, self, highest), "the highest descriptor lost its description");
  CHECK(!same_description(self, first, self, separate), "separate opens became one");
  CHECK(!same_description(self, nonblock, child, nonblock), "separate opens of parent and child became one");
  char text[8] = "";
  CHECK(pread(separate, text, 5, 10) == 5 && memcmp(text, "abcde", 5) == 0, "content");
  struct stat before, now;
  CHECK(fstat(append, &before) == 0 && write(append, "x", 1) == 1 && fstat(append, &now) == 0 &&
            now.st_size == before.st_size + 1,
        "append");
}

static void child_main(void) {
  close(nonblock);
  nonblock = open_or_die(subject_path("a"), O_RDONLY | O_NONBLOCK);
  subject_write_file("child", "up\n");
  while (subject_next()) {
    CHECK(WAIT_UNTIL(lseek(first, 0, SEEK_CUR) == 9), "the parent's seek is not seen, position %ld",
          (long)lseek(first, 0, SEEK_CUR));
    lseek(first, 11, SEEK_SET);
    subject_part("child");
  }
  WAIT_UNTIL(access(subject_path("compared"), F_OK) == 0);  // its descriptors must be there for kcmp
  _exit(subject_status());
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  struct rlimit limit;
  REQUIRE(getrlimit(RLIMIT_NOFILE, &limit) == 0);
  limit.rlim_cur = limit.rlim_max;
  REQUIRE(setrlimit(RLIMIT_NOFILE, &limit) == 0);
  open_all(limit.rlim_max < 1 << 20 ? (int)limit.rlim_max - 1 : (1 << 20) - 1);
  pid_t child = fork();
  if (child == 0) child_main();
  REQUIRE(child > 0 && WAIT_UNTIL(access(subject_path("child"), F_OK) == 0));

  for (subject_ready(); subject_next(); subject_verdict()) {
    check_all(child);
    lseek(duplicate, 9, SEEK_SET);
    subject_collect("child");
    CHECK(lseek(first, 0, SEEK_CUR) == 11, "the child's seek is not seen");
    lseek(first, 5, SEEK_SET);
    if (subject_last) subject_write_file("compared", "\n");
    subject_join(child);
  }
  return subject_status();
}
