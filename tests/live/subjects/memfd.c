// memfds: name, size, content, mode, owner, seals; several open descriptions of one, in two tasks; mappings of it.
#include <sys/mman.h>

#include "subject.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x10
#endif
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8  // Linux 6.3
#endif
#define BASE_SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

static int open_again(int fd, int flags) {
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  int again = open(path, flags);
  REQUIRE(again >= 0);
  return again;
}

static void put_page(int fd, size_t page, uint64_t salt) {
  char bytes[kPageBytes];
  fill_page(bytes, salt);
  REQUIRE(pwrite(fd, bytes, sizeof bytes, (off_t)(page * kPageBytes)) == sizeof bytes);
}
static bool file_page_holds(int fd, size_t page, uint64_t salt) {
  char bytes[kPageBytes];
  return pread(fd, bytes, sizeof bytes, (off_t)(page * kPageBytes)) == sizeof bytes && page_holds(bytes, salt);
}
static off_t size_of(int fd) {
  struct stat st;
  return fstat(fd, &st) == 0 ? st.st_size : -1;
}

static void check_name(int fd, const char* wanted) {
  char path[64], link[300] = "";
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(path, link, sizeof link - 1);
  CHECK(length > 0 && strcmp(link, wanted) == 0, "fd %d is %s", fd, link);
}

// Runs the program in a memfd: nobody may have it open for writing.
static void check_exec(int fd) {
  pid_t child = fork();
  if (child == 0) {
    char* const arguments[] = {"true", NULL};
    char* const none[] = {NULL};
    fexecve(fd, arguments, none);
    _exit(errno);
  }
  int status = -1;
  CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0, "exec gave %#x", status);
}

static int program_memfd(void) {
  int from = open("/bin/true", O_RDONLY);
  int fd = memfd_create("program", MFD_CLOEXEC);
  char bytes[65536];
  ssize_t n;
  while ((n = read(from, bytes, sizeof bytes)) > 0) REQUIRE(write(fd, bytes, (size_t)n) == n);
  close(from);
  int readable = fcntl(open_again(fd, O_RDONLY), F_DUPFD_CLOEXEC, 50);
  REQUIRE(readable >= 0);
  close(fd);
  return readable;
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  // One inode, four descriptions; one is the child's alone, one both have.
  int fd = memfd_create("a name with\nodd \\ characters", MFD_ALLOW_SEALING);
  REQUIRE(fd >= 0 && ftruncate(fd, 10 * kPageBytes + 123) == 0);
  put_page(fd, 0, 1);
  put_page(fd, 7, 8);
  REQUIRE(pwrite(fd, "tail", 4, 10 * kPageBytes + 100) == 4);
  REQUIRE(fchown(fd, 12, 34) == 0 && fchmod(fd, 04751) == 0);
  REQUIRE(lseek(fd, 777, SEEK_SET) == 777);
  int reader = open_again(fd, O_RDONLY | O_CLOEXEC);
  REQUIRE(lseek(reader, 55, SEEK_SET) == 55);
  int appender = open_again(fd, O_WRONLY | O_APPEND | O_NONBLOCK);
  int path_only = open_again(fd, O_PATH);
  int twin = dup(reader);

  char* shared = mmap(NULL, 4 * kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  char* own = mmap(NULL, 8 * kPageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
  REQUIRE(shared != MAP_FAILED && own != MAP_FAILED);
  fill_page(own + 2 * kPageBytes, 333);  // a page of its own; page 7 is still the object's

  int sealed = memfd_create("sealed", MFD_ALLOW_SEALING);
  put_page(sealed, 0, 40);
  REQUIRE(fcntl(sealed, F_ADD_SEALS, BASE_SEALS) == 0);
  char* of_sealed = mmap(NULL, kPageBytes, PROT_READ, MAP_SHARED, sealed, 0);
  REQUIRE(of_sealed != MAP_FAILED);
  int future = memfd_create("future", MFD_ALLOW_SEALING);
  put_page(future, 0, 41);
  char* of_future = mmap(NULL, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, future, 0);
  REQUIRE(of_future != MAP_FAILED);
  bool has_future = fcntl(future, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK) == 0;
  char* read_of_future = mmap(NULL, kPageBytes, PROT_READ, MAP_SHARED, open_again(future, O_RDONLY), 0);
  REQUIRE(read_of_future != MAP_FAILED);
  int no_exec = memfd_create("noexec", MFD_NOEXEC_SEAL);
  int no_exec_seals = no_exec >= 0 ? fcntl(no_exec, F_GET_SEALS) : 0;
  int empty = memfd_create("", 0);
  // Its descriptor is gone, its mapping is not.
  int closed = memfd_create("closed", MFD_ALLOW_SEALING);
  put_page(closed, 2, 50);
  char* of_closed = mmap(NULL, 3 * kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, closed, 0);
  REQUIRE(of_closed != MAP_FAILED && close(closed) == 0);
  int program = program_memfd();

  pid_t child = fork();
  if (child == 0) {
    int own_description = open_again(fd, O_RDWR);
    REQUIRE(lseek(own_description, 4321, SEEK_SET) == 4321);
    subject_write_file("child", "up\n");
    while (subject_next()) {
      CHECK(lseek(own_description, 0, SEEK_CUR) == 4321, "position in the child");
      CHECK(lseek(reader, 0, SEEK_CUR) == 55, "shared position in the child");
      CHECK(page_holds(own + 2 * kPageBytes, 333) && page_holds(own + 7 * kPageBytes, 8), "private pages in the child");
      shared[100] = (char)subject_generation;
      subject_part("child");
    }
    _exit(subject_status());
  }
  REQUIRE(child > 0 && WAIT_UNTIL(access(subject_path("child"), F_OK) == 0));

  for (subject_ready(); subject_next(); subject_verdict()) {
    check_name(fd, "/memfd:a name with\nodd \\ characters (deleted)");
    check_name(empty, "/memfd: (deleted)");
    struct stat st, other;
    CHECK(fstat(fd, &st) == 0 && st.st_size == 10 * kPageBytes + 123, "size %ld", (long)st.st_size);
    CHECK(st.st_uid == 12 && st.st_gid == 34 && (st.st_mode & 07777) == 04751, "owner %d, mode %o", st.st_uid, st.st_mode);
    CHECK(fstat(path_only, &other) == 0 && other.st_ino == st.st_ino, "O_PATH leads to another file");
    CHECK(st.st_blocks <= 4 * kPageBytes / 512, "%ld blocks: holes were filled", (long)st.st_blocks);
    CHECK(file_page_holds(fd, 7, 8), "content");
    char tail[23] = "";
    CHECK(pread(fd, tail, sizeof tail, 10 * kPageBytes + 100) == 23 && strcmp(tail, "tail") == 0, "the last bytes");
    CHECK(lseek(fd, 0, SEEK_CUR) == 777 && lseek(reader, 0, SEEK_CUR) == 55 && lseek(twin, 0, SEEK_CUR) == 55, "positions");
    CHECK((fcntl(appender, F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK)) == (O_WRONLY | O_APPEND | O_NONBLOCK), "flags");
    CHECK((fcntl(reader, F_GETFL) & O_ACCMODE) == O_RDONLY && fcntl(reader, F_GETFD) == FD_CLOEXEC, "reader");
    CHECK((fcntl(path_only, F_GETFL) & O_PATH) != 0, "O_PATH");
    CHECK(fcntl(fd, F_GET_SEALS) == 0, "seals");
    subject_collect("child");
    CHECK(shared[100] == (char)subject_generation, "the child's write does not arrive in the mapping");
    CHECK(pread(reader, tail, 1, 100) == 1 && tail[0] == (char)subject_generation, "nor in the file");
    fill_page(shared, 1);
    CHECK(page_holds(own + 2 * kPageBytes, 333), "the page of the private mapping");
    CHECK(page_holds(own + 7 * kPageBytes, 8), "the private mapping does not see the object");

    CHECK(fcntl(sealed, F_GET_SEALS) == BASE_SEALS, "seals %#x", fcntl(sealed, F_GET_SEALS));
    CHECK(page_holds(of_sealed, 40) && file_page_holds(sealed, 0, 40), "sealed content");
    CHECK(mprotect(of_sealed, kPageBytes, PROT_READ | PROT_WRITE) != 0, "a sealed mapping became writable");
    CHECK(mmap(NULL, kPageBytes, PROT_WRITE, MAP_SHARED, sealed, 0) == MAP_FAILED, "a sealed file was mapped writable");
    CHECK(pwrite(sealed, "x", 1, 0) < 0 && ftruncate(sealed, 1) < 0, "a sealed file was changed");
    if (has_future) {
      CHECK(fcntl(future, F_GET_SEALS) == (F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK), "seals %#x", fcntl(future, F_GET_SEALS));
      CHECK(pwrite(future, "x", 1, 0) < 0, "a file sealed against future writes was written to");
    }
    CHECK(mprotect(read_of_future, kPageBytes, PROT_READ | PROT_WRITE) != 0, "a mapping made after the seal can be written");
    of_future[8]++;  // the old mapping may still write
    of_future[8]--;
    CHECK(page_holds(of_future, 41), "content");
    if (no_exec >= 0) CHECK(fcntl(no_exec, F_GET_SEALS) == no_exec_seals, "seals %#x", fcntl(no_exec, F_GET_SEALS));
    CHECK(fcntl(empty, F_GET_SEALS) == F_SEAL_SEAL && size_of(empty) == 0, "the empty one");
    CHECK(page_holds(of_closed + 2 * kPageBytes, 50) && page_is_zero(of_closed), "the one without descriptor");
    of_closed[5] = 1;
    of_closed[5] = 0;
    check_exec(program);
    subject_join(child);
  }
  return subject_status();
}
