// Working directory, root and umask of two processes and of a thread that shares them.

#include "start_thread.h"
#include "subject.h"

static volatile mode_t thread_umask = 07777;
static volatile int request;

static void* sharing_thread(void* unused) {
  for (int seen = 0;; sleep_ms(1)) {
    if (request == seen) continue;
    seen = request;
    mode_t mask = umask(0);
    umask(mask);
    thread_umask = mask;
  }
  return unused;
}

static void check_directory(const char* wanted, mode_t wanted_umask) {
  char current[PATH_MAX], root[PATH_MAX] = "";
  CHECK(getcwd(current, sizeof current) != NULL && strcmp(current, wanted) == 0, "the directory is %s", current);
  CHECK(readlink("/proc/self/root", root, sizeof root - 1) == 1 && root[0] == '/', "the root is %s", root);
  mode_t mask = umask(wanted_umask);
  CHECK(mask == wanted_umask, "the umask is %#o", mask);
  int fd = open("made", O_CREAT | O_WRONLY | O_EXCL, 0777);
  struct stat info;
  CHECK(fd >= 0 && fstat(fd, &info) == 0 && (info.st_mode & 0777) == (0777 & ~wanted_umask), "mode of a new file");
  close(fd);
  unlink("made");
}

static void child_main(const char* directory) {
  REQUIRE(chdir(directory) == 0);
  umask(0077);
  subject_write_file("child", "up\n");
  while (subject_next()) {
    check_directory(directory, 0077);
    subject_part("child");
  }
  _exit(subject_status());
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  char first[PATH_MAX], second[PATH_MAX];
  snprintf(first, sizeof first, "%s/a directory with \\ and %%", subject_dir);
  snprintf(second, sizeof second, "%s/second", subject_dir);
  REQUIRE(mkdir(first, 0755) == 0 && mkdir(second, 0755) == 0 && chdir(first) == 0);
  umask(0027);
  pid_t child = fork();
  if (child == 0) child_main(second);
  REQUIRE(child > 0 && WAIT_UNTIL(access(subject_path("child"), F_OK) == 0));
  pthread_t thread;
  start_thread(&thread, sharing_thread, NULL);

  for (subject_ready(); subject_next(); subject_verdict()) {
    check_directory(first, 0027);
    umask(0013);  // a thread shares it, another process does not
    request = subject_generation;
    CHECK(WAIT_UNTIL(thread_umask == 0013), "the thread sees umask %#o", thread_umask);
    umask(0027);
    subject_collect("child");
    subject_join(child);
  }
  return subject_status();
}
