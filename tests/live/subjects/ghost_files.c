// Deleted regular files: contents and holes, owner, mode, times, attributes; names that are odd, taken by another file, or
// in a directory that is gone, too; several descriptions, mappings and tasks that meet one inode.
#include <linux/kcmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

#include "subject.h"

enum { kMost = 16, kUser = 1234, kGroup = 5678 };
enum { kBlock = 4096 };

struct ghost {
  const char* name;
  int fd;
  struct stat st;  // as it was at first
  off_t position;
  char map[4096];  // where its data are
};
static struct ghost ghosts[kMost];
static int count;
static bool has_xattrs;

static void data_map(int fd, char* text, size_t size) {
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  int own = open(path, O_RDONLY | O_NOATIME | O_CLOEXEC);
  REQUIRE(own >= 0);
  size_t used = 0;
  off_t end = 0;
  text[0] = '\0';
  for (;;) {
    off_t start = lseek(own, end, SEEK_DATA);
    if (start < 0) break;
    end = lseek(own, start, SEEK_HOLE);
    used += (size_t)snprintf(text + used, size - used, "%lx-%lx ", (unsigned long)start, (unsigned long)end);
    REQUIRE(used < size);
  }
  close(own);
}

static void put_block(int fd, off_t at, int salt) {
  char block[kBlock];
  fill_page(block, (uint64_t)salt * 1000003u + (uint64_t)(at / kBlock));
  REQUIRE(pwrite(fd, block, sizeof block, at) == (ssize_t)sizeof block);
}

static int make(const char* name, int flags) {
  int fd = open(subject_path(name), O_RDWR | O_CREAT | O_EXCL | flags, 0600);
  if (fd < 0) die("cannot make %s", name);
  return fd;
}

// Deletes it, and keeps it in mind.
static void forget(const char* name, int fd) {
  struct ghost* g = &ghosts[count++];
  REQUIRE(count <= kMost);
  if (name[0] != '#') REQUIRE(unlink(subject_path(name)) == 0);
  *g = (struct ghost){.name = name, .fd = fd, .position = lseek(fd, 0, SEEK_CUR)};
  data_map(fd, g->map, sizeof g->map);
  REQUIRE(fstat(fd, &g->st) == 0 && g->st.st_nlink == 0);
}

static int empty, small, holes, second, large, odd, taken, other_taken, orphan, unnamed, modes, plain_read, no_follow, path_only, duplicate;
static char *shared_area, *private_area;
static ino_t other_inode;

static void make_all(void) {
  empty = make("empty", 0);
  forget("empty", empty);
  small = make("small", O_APPEND);
  REQUIRE(write(small, "small content", 13) == 13 && lseek(small, 5, SEEK_SET) == 5);
  forget("small", small);

  holes = make("holes", 0);  // at the start, in the middle, at the end
  put_block(holes, 4 * kBlock, 1);
  put_block(holes, 9 * kBlock, 1);
  REQUIRE(ftruncate(holes, 20 * kBlock + 17) == 0);
  forget("holes", holes);
  int little = make("little hole", 0);  // less than what is stored in chunks
  REQUIRE(ftruncate(little, 2 * kBlock) == 0);
  put_block(little, kBlock, 2);
  forget("little hole", little);
  second = make("every second", 0);
  for (int i = 0; i < 100; i++) put_block(second, 2l * i * kBlock, 3);
  forget("every second", second);
  large = make("large", 0);
  put_block(large, (off_t)5 << 30, 4);
  put_block(large, 0, 4);
  forget("large", large);

  odd = make("odd \\ \" ' \n %s \xff (deleted)", 0);
  REQUIRE(write(odd, "odd", 3) == 3);
  forget("odd \\ \" ' \n %s \xff (deleted)", odd);

  taken = make("taken", 0);
  REQUIRE(write(taken, "mine", 4) == 4);
  forget("taken", taken);
  other_taken = make("taken", 0);
  REQUIRE(write(other_taken, "another", 7) == 7);
  struct stat st;
  REQUIRE(fstat(other_taken, &st) == 0);
  other_inode = st.st_ino;
  close(other_taken);

  REQUIRE(mkdir(subject_path("gone"), 0700) == 0 && mkdir(subject_path("gone/deeper"), 0700) == 0);
  orphan = make("gone/deeper/orphan", 0);
  REQUIRE(write(orphan, "orphan", 6) == 6);
  forget("gone/deeper/orphan", orphan);
  REQUIRE(rmdir(subject_path("gone/deeper")) == 0 && rmdir(subject_path("gone")) == 0);

  unnamed = open(subject_dir, O_TMPFILE | O_RDWR, 0640);
  if (unnamed >= 0) {
    REQUIRE(write(unnamed, "unnamed", 7) == 7);
    forget("#", unnamed);
  }

  modes = make("modes", 0);
  REQUIRE(write(modes, "modes", 5) == 5);
  has_xattrs = fsetxattr(modes, "user.note", "a\0b", 3, 0) == 0;
  REQUIRE(fchown(modes, kUser, kGroup) == 0 && fchmod(modes, 07641) == 0);
  struct timespec times[2] = {{1000000007, 123456789}, {1100000003, 987654321}};
  REQUIRE(futimens(modes, times) == 0);
  plain_read = open(subject_path("modes"), O_RDONLY | O_NOATIME);
  no_follow = open(subject_path("modes"), O_WRONLY | O_NOFOLLOW | O_APPEND);
  path_only = open(subject_path("modes"), O_PATH | O_NOFOLLOW);
  duplicate = dup(plain_read);
  int mapped = open(subject_path("modes"), O_RDWR);
  REQUIRE(plain_read >= 0 && no_follow >= 0 && path_only >= 0 && duplicate >= 0 && mapped >= 0);
  REQUIRE(ftruncate(modes, kBlock) == 0 && futimens(modes, times) == 0);
  shared_area = mmap(NULL, kBlock, PROT_READ | PROT_WRITE, MAP_SHARED, mapped, 0);
  private_area = mmap(NULL, kBlock, PROT_READ | PROT_WRITE, MAP_PRIVATE, mapped, 0);
  REQUIRE(shared_area != MAP_FAILED && private_area != MAP_FAILED);
  private_area[1] = '!';
  close(mapped);
  REQUIRE(lseek(plain_read, 3, SEEK_SET) == 3);
  forget("modes", modes);
}

static void check_ghost(const struct ghost* g) {
  struct stat now;
  char map[sizeof g->map];
  CHECK(fstat(g->fd, &now) == 0, "%s", g->name);
  CHECK(now.st_nlink == 0, "%s has %lu names", g->name, (unsigned long)now.st_nlink);
  CHECK(now.st_mode == g->st.st_mode && now.st_uid == g->st.st_uid && now.st_gid == g->st.st_gid, "%s: %o %u:%u",
        g->name, now.st_mode, now.st_uid, now.st_gid);
  CHECK(now.st_size == g->st.st_size, "%s: %ld bytes", g->name, (long)now.st_size);
  CHECK(now.st_mtim.tv_sec == g->st.st_mtim.tv_sec && now.st_mtim.tv_nsec == g->st.st_mtim.tv_nsec, "%s: mtime %ld.%09ld",
        g->name, (long)now.st_mtim.tv_sec, now.st_mtim.tv_nsec);
  CHECK(now.st_atim.tv_sec == g->st.st_atim.tv_sec && now.st_atim.tv_nsec == g->st.st_atim.tv_nsec, "%s: atime %ld.%09ld",
        g->name, (long)now.st_atim.tv_sec, now.st_atim.tv_nsec);
  data_map(g->fd, map, sizeof map);
  CHECK(strcmp(map, g->map) == 0, "%s: data at %.60s", g->name, map);
  CHECK(lseek(g->fd, 0, SEEK_CUR) == g->position, "%s: position", g->name);
}

static void check_blocks(int fd, int salt, int blocks, off_t step, off_t from) {
  char block[kBlock];
  for (int i = 0; i < blocks; i++) {
    off_t at = from + i * step;
    CHECK(pread(fd, block, sizeof block, at) == (ssize_t)sizeof block &&
              page_holds(block, (uint64_t)salt * 1000003u + (uint64_t)(at / kBlock)),
          "the block at %ld", (long)at);
  }
}

static void check_text(int fd, const char* wanted) {
  char text[32] = "";
  CHECK(pread(fd, text, sizeof text - 1, 0) == (ssize_t)strlen(wanted) && strcmp(text, wanted) == 0, "%s reads %s", wanted, text);
}

static void check_contents(void) {
  check_text(empty, "");
  check_text(small, "small content");
  check_blocks(holes, 1, 2, 5 * kBlock, 4 * kBlock);
  check_blocks(second, 3, 100, 2 * kBlock, 0);
  check_blocks(large, 4, 2, (off_t)5 << 30, 0);
  check_text(odd, "odd");
  check_text(taken, "mine");
  check_text(orphan, "orphan");
  if (unnamed >= 0) check_text(unnamed, "unnamed");
  // Reading leaves access times.
  for (int i = 0; i < count; i++) {
    struct timespec times[2] = {ghosts[i].st.st_atim, ghosts[i].st.st_mtim};
    REQUIRE(futimens(ghosts[i].fd, times) == 0);
  }
}

static void check_sharing(pid_t child) {
  char byte = 0;
  shared_area[0]++;
  CHECK(pread(plain_read, &byte, 1, 0) == 1 && byte == shared_area[0], "mapping and descriptor are two files");
  CHECK(private_area[1] == '!' && private_area[2] == 'd', "the private mapping reads %.5s", private_area);
  shared_area[0]--;
  int ignored = O_LARGEFILE | 0100000;
  CHECK((fcntl(no_follow, F_GETFL) & ~ignored) == (O_WRONLY | O_NOFOLLOW | O_APPEND), "flags %#o", fcntl(no_follow, F_GETFL));
  CHECK((fcntl(path_only, F_GETFL) & ~ignored) == (O_PATH | O_NOFOLLOW), "flags %#o", fcntl(path_only, F_GETFL));
  if (unnamed >= 0) CHECK((fcntl(unnamed, F_GETFL) & ~ignored) == (O_TMPFILE | O_RDWR), "flags %#o", fcntl(unnamed, F_GETFL));
  struct stat a, b;
  CHECK(fstat(modes, &a) == 0 && fstat(path_only, &b) == 0 && a.st_ino == b.st_ino && a.st_dev == b.st_dev, "two inodes");
  CHECK(fstat(no_follow, &b) == 0 && a.st_ino == b.st_ino && a.st_dev == b.st_dev, "two inodes");
  pid_t self = getpid();
  CHECK(syscall(SYS_kcmp, self, child, KCMP_FILE, modes, modes) == 0, "the child lost the shared description");
  CHECK(syscall(SYS_kcmp, self, self, KCMP_FILE, plain_read, duplicate) == 0, "dup lost its description");
  CHECK(syscall(SYS_kcmp, self, self, KCMP_FILE, plain_read, modes) != 0, "separate opens became one");
  char value[8] = "";
  if (has_xattrs) CHECK(fgetxattr(modes, "user.note", value, sizeof value) == 3 && memcmp(value, "a\0b", 3) == 0, "attribute");
  struct stat st;
  char text[8] = "";
  CHECK(stat(subject_path("taken"), &st) == 0 && st.st_ino == other_inode && st.st_nlink == 1, "the other file was touched");
  int fd = open(subject_path("taken"), O_RDONLY | O_CLOEXEC);
  CHECK(fd >= 0 && read(fd, text, sizeof text) == 7 && memcmp(text, "another", 7) == 0, "the other file reads %.7s", text);
  close(fd);
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  make_all();
  pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", small);
    int separate = open(path, O_RDONLY | O_NOATIME);
    REQUIRE(separate >= 0 && lseek(separate, 2, SEEK_SET) == 2);
    subject_write_file("child", "");
    while (subject_next()) {
      struct stat a, b;
      char text[8] = "";
      CHECK(lseek(separate, 0, SEEK_CUR) == 2 && pread(separate, text, 5, 0) == 5 && strcmp(text, "small") == 0, "the child reads %s", text);
      CHECK(fstat(small, &a) == 0 && fstat(separate, &b) == 0 && a.st_ino == b.st_ino, "the child has two inodes");
      subject_part("child");
    }
    REQUIRE(WAIT_UNTIL(access(subject_path("compared"), F_OK) == 0));  // kcmp() needs two that live
    return subject_status();
  }
  REQUIRE(WAIT_UNTIL(access(subject_path("child"), F_OK) == 0));
  for (subject_ready(); subject_next(); subject_verdict()) {
    subject_collect("child");
    for (int i = 0; i < count; i++) check_ghost(&ghosts[i]);
    check_sharing(child);
    check_contents();
    if (subject_last) {
      // What never had a name may get one, what lost it not.
      CHECK(linkat(small, "", AT_FDCWD, subject_path("again"), AT_EMPTY_PATH) == -1 && errno == ENOENT, "a deleted file was linked");
      char path[64];
      snprintf(path, sizeof path, "/proc/self/fd/%d", unnamed);
      if (unnamed >= 0) CHECK(linkat(AT_FDCWD, path, AT_FDCWD, subject_path("named"), AT_SYMLINK_FOLLOW) == 0, "link");
    }
    if (subject_last) subject_write_file("compared", "");
    subject_join(child);
  }
  return subject_status();
}
