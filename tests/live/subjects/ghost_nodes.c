// What else can be in use when its name is gone: directories, also below each other and as working directory, symbolic
// links, device nodes, sockets and fifos that are only looked at.
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

#include "subject.h"

static int outer, inner, inside, link_fd, null_fd, null_path, fifo, fifo_reader, fifo_path, socket_path;
static struct stat outer_st, link_st, null_st, fifo_st, socket_st;

static void same(int fd, const struct stat* was, const char* what) {
  struct stat now;
  CHECK(fstat(fd, &now) == 0 && now.st_mode == was->st_mode && now.st_uid == was->st_uid && now.st_gid == was->st_gid &&
            now.st_rdev == was->st_rdev && now.st_nlink == 0,
        "%s: mode %o, %u:%u, device %lx, %lu names", what, now.st_mode, now.st_uid, now.st_gid,
        (unsigned long)now.st_rdev, (unsigned long)now.st_nlink);
  CHECK(now.st_mtim.tv_sec == was->st_mtim.tv_sec && now.st_mtim.tv_nsec == was->st_mtim.tv_nsec, "%s: mtime", what);
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  REQUIRE(mkdir(subject_path("outer"), 0700) == 0 && mkdir(subject_path("outer/inner"), 0700) == 0);
  outer = open(subject_path("outer"), O_RDONLY | O_DIRECTORY);
  inner = open(subject_path("outer/inner"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  inside = open(subject_path("outer/inner/file"), O_RDWR | O_CREAT, 0600);
  REQUIRE(outer >= 0 && inner >= 0 && inside >= 0 && write(inside, "inside", 6) == 6);
  REQUIRE(chdir(subject_path("outer/inner")) == 0);
  REQUIRE(unlink(subject_path("outer/inner/file")) == 0 && rmdir(subject_path("outer/inner")) == 0);
  REQUIRE(rmdir(subject_path("outer")) == 0);
  struct timespec times[2] = {{1000000007, 123456789}, {1100000003, 987654321}};
  REQUIRE(fchown(outer, 12, 34) == 0 && fchmod(outer, 01750) == 0 && futimens(outer, times) == 0);
  REQUIRE(fstat(outer, &outer_st) == 0);

  REQUIRE(symlink("to nowhere \xff", subject_path("link")) == 0 && lchown(subject_path("link"), 5, 6) == 0);
  link_fd = open(subject_path("link"), O_PATH | O_NOFOLLOW);
  REQUIRE(link_fd >= 0 && unlink(subject_path("link")) == 0 && fstat(link_fd, &link_st) == 0);

  if (mknod(subject_path("null"), S_IFCHR | 0600, makedev(1, 3)) != 0) subject_skip("device nodes can be made");
  REQUIRE(chmod(subject_path("null"), 0624) == 0);
  null_fd = open(subject_path("null"), O_RDWR);
  null_path = open(subject_path("null"), O_PATH);
  REQUIRE(null_path >= 0 && unlink(subject_path("null")) == 0 && fstat(null_path, &null_st) == 0);

  REQUIRE(mkfifo(subject_path("fifo"), 0600) == 0);
  fifo_path = open(subject_path("fifo"), O_PATH);
  fifo_reader = open(subject_path("fifo"), O_RDONLY | O_NONBLOCK);
  fifo = open(subject_path("fifo"), O_WRONLY);
  REQUIRE(fifo_path >= 0 && fifo_reader >= 0 && fifo >= 0 && write(fifo, "in flight", 9) == 9);
  REQUIRE(unlink(subject_path("fifo")) == 0 && fstat(fifo_path, &fifo_st) == 0);
  REQUIRE(mknod(subject_path("socket"), S_IFSOCK | 0640, 0) == 0);
  socket_path = open(subject_path("socket"), O_PATH);
  REQUIRE(socket_path >= 0 && unlink(subject_path("socket")) == 0 && fstat(socket_path, &socket_st) == 0);

  for (subject_ready(); subject_next(); subject_verdict()) {
    char text[PATH_MAX] = "";
    CHECK(getcwd(text, sizeof text) == NULL && errno == ENOENT, "the removed directory has a name");
    CHECK(open("new", O_RDWR | O_CREAT, 0600) == -1 && errno == ENOENT, "a removed directory takes files");
    struct stat here, there;
    CHECK(stat(".", &here) == 0 && fstat(inner, &there) == 0 && here.st_ino == there.st_ino, "two inodes");
    CHECK(stat("..", &here) == 0 && fstat(outer, &there) == 0 && here.st_ino == there.st_ino, "another parent");
    same(outer, &outer_st, "the directory");
    CHECK(pread(inside, text, sizeof text, 0) == 6 && memcmp(text, "inside", 6) == 0, "the file inside reads %.10s", text);
    same(link_fd, &link_st, "the symbolic link");
    memset(text, 0, sizeof text);
    CHECK(readlinkat(link_fd, "", text, sizeof text) == 12 && strcmp(text, "to nowhere \xff") == 0, "target %.99s", text);
    same(null_path, &null_st, "the device");
    if (null_fd >= 0) CHECK(write(null_fd, "x", 1) == 1 && read(null_fd, text, 1) == 0, "/dev/null");
    same(fifo_path, &fifo_st, "the fifo");
    CHECK(fstat(fifo, &here) == 0 && fstat(fifo_path, &there) == 0 && here.st_ino == there.st_ino, "two inodes");
    memset(text, 0, sizeof text);
    CHECK(read(fifo_reader, text, sizeof text) == 9 && memcmp(text, "in flight", 9) == 0, "the fifo holds %.20s", text);
    CHECK(write(fifo, "in flight", 9) == 9, "the fifo takes nothing");
    struct timespec written[2] = {fifo_st.st_atim, fifo_st.st_mtim};
    REQUIRE(futimens(fifo, written) == 0);
    same(socket_path, &socket_st, "the socket");
  }
  return subject_status();
}
