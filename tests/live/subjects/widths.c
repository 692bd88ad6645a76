// A tree of 64-bit and 32-bit programs: each process but the last starts a program of the other width. Compiled for
// both; the programs lie beside each other.
#include <sys/mman.h>
#include <signal.h>
#include <sys/prctl.h>

#include "subject.h"

enum { kDepth = 4 };

#if defined(__x86_64__)
static const char kOther[] = "ia32_widths";
#else
static const char kOther[] = "widths";
#endif

static void run_other(const char* own, char** argv, int depth) {
  char path[PATH_MAX], level[16];
  const char* slash = strrchr(own, '/');
  snprintf(path, sizeof path, "%.*s/%s", (int)(slash - own), own, kOther);
  snprintf(level, sizeof level, "%d", depth + 1);
  execl(path, path, argv[1], level, (char*)NULL);
  die("cannot execute %s", path);
}

static void check_self(uint32_t* page, int depth) {
  CHECK(*page == 0xabcd0000u + (unsigned)depth, "its memory holds %#x", *page);
  char exe[PATH_MAX] = "";
  CHECK(readlink("/proc/self/exe", exe, sizeof exe - 1) > 0, "its executable");
  const bool narrow = strstr(exe, "/ia32_") != NULL;
  CHECK(narrow == (sizeof(void*) == 4), "its executable is %s", exe);
  // A new program of the other width still starts.
  pid_t child = fork();
  if (child == 0) {
    execl("/bin/true", "true", (char*)NULL);
    _exit(1);
  }
  int status = -1;
  CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0, "/bin/true ends with %#x", (unsigned)status);
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  const int depth = argc > 2 ? atoi(argv[2]) : 0;
  char own[PATH_MAX] = "";
  if (readlink("/proc/self/exe", own, sizeof own - 1) <= 0) die("no /proc");
  if (sizeof(void*) == 8) {
    char other[PATH_MAX];
    snprintf(other, sizeof other, "%.*s/%s", (int)(strrchr(own, '/') - own), own, kOther);
    if (access(other, X_OK) != 0) subject_skip("a compiler and libraries for 32-bit programs");
  }
  uint32_t* page = mmap(NULL, kPageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  REQUIRE(page != MAP_FAILED);
  *page = 0xabcd0000u + (unsigned)depth;

  char tag[16], next[16];
  snprintf(tag, sizeof tag, "%d", depth);
  snprintf(next, sizeof next, "%d", depth + 1);
  pid_t other = 0, same = 0;
  if (depth + 1 < kDepth) {
    REQUIRE((other = fork()) >= 0);
    if (other == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      run_other(own, argv, depth);
    }
    // Another one that has a copy of this memory.
    REQUIRE((same = fork()) >= 0);
    if (same == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      char file[16];
      snprintf(file, sizeof file, "%d.same", depth);
      while (subject_next()) {
        check_self(page, depth);
        subject_part(file);
      }
      return subject_status();
    }
    REQUIRE(WAIT_UNTIL(access(subject_path(next), F_OK) == 0));
  }
  subject_write_file(tag, "\n");
  if (depth == 0) subject_ready();
  while (subject_next()) {
    check_self(page, depth);
    if (other != 0) {
      char file[16];
      snprintf(file, sizeof file, "%d.same", depth);
      subject_collect(file);
      subject_collect(next);
      subject_join(other);
      subject_join(same);
    }
    if (depth == 0)
      subject_verdict();
    else
      subject_part(tag);
  }
  return subject_status();
}
