// What a process has besides its memory: core dump filter, merging of all memory (KSM), refusal of executable memory
// (MDWE), huge pages only where advised, nice value of the session. A child has other values than its parent.
#include <sys/mman.h>
#include <sys/prctl.h>

#include "subject.h"

enum { kSetMdwe = 65, kGetMdwe = 66, kRefuseExecGain = 1 };
enum { kSetMerge = 67, kGetMerge = 68 };
enum { kExceptAdvised = 2 };

struct attributes {
  int merge, mdwe, huge;
  char filter[32], autogroup[32];
};

static void write_proc(const char* path, const char* text) {
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  REQUIRE(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
  close(fd);
}

static struct attributes read_attributes(void) {
  struct attributes out = {.merge = prctl(kGetMerge, 0, 0, 0, 0),
                           .mdwe = prctl(kGetMdwe, 0, 0, 0, 0),
                           .huge = prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0)};
  char text[64] = "";
  subject_read_file("/proc/self/coredump_filter", out.filter, sizeof out.filter);
  // The number of the group is new, its nice value is not.
  if (subject_read_file("/proc/self/autogroup", text, sizeof text) > 0 && strstr(text, " nice") != NULL)
    snprintf(out.autogroup, sizeof out.autogroup, "%.31s", strstr(text, " nice"));
  return out;
}

static void check_attributes(const char* who, const struct attributes* want) {
  struct attributes now = read_attributes();
  CHECK(strcmp(now.filter, want->filter) == 0, "%s: core dump filter %s", who, now.filter);
  CHECK(now.merge == want->merge, "%s: merging is %d, not %d", who, now.merge, want->merge);
  CHECK(now.mdwe == want->mdwe, "%s: MDWE is %d, not %d", who, now.mdwe, want->mdwe);
  CHECK(now.huge == want->huge, "%s: huge pages are %d, not %d", who, now.huge, want->huge);
  CHECK(strcmp(now.autogroup, want->autogroup) == 0, "%s: autogroup%s", who, now.autogroup);
}

static bool can_map_executable(void) {
  void* page = mmap(NULL, kPageBytes, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return false;
  munmap(page, kPageBytes);
  return true;
}

static void child_main(void) {
  write_proc("/proc/self/coredump_filter", "0x7f");
  prctl(kSetMdwe, kRefuseExecGain, 0, 0, 0);  // before 6.3 it stays as it is
  prctl(kSetMerge, 0, 0, 0, 0);
  if (prctl(PR_SET_THP_DISABLE, 1, kExceptAdvised, 0, 0) != 0) prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
  struct attributes want = read_attributes();
  subject_write_file("child", "up\n");
  while (subject_next()) {
    check_attributes("the child", &want);
    CHECK(can_map_executable() == (want.mdwe <= 0), "the child: executable memory");
    subject_part("child");
  }
  _exit(subject_status());
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  write_proc("/proc/self/coredump_filter", "0x1");
  prctl(kSetMerge, 1, 0, 0, 0);  // before 6.4 it stays as it is
  if (access("/proc/self/autogroup", F_OK) == 0) write_proc("/proc/self/autogroup", "7");
  pid_t child = fork();
  if (child == 0) child_main();
  REQUIRE(child > 0 && WAIT_UNTIL(access(subject_path("child"), F_OK) == 0));
  struct attributes want = read_attributes();
  REQUIRE(strtol(want.filter, NULL, 16) == 1);

  for (subject_ready(); subject_next(); subject_verdict()) {
    check_attributes("the parent", &want);
    CHECK(can_map_executable(), "the parent: executable memory");
    subject_collect("child");
    subject_join(child);
  }
  return subject_status();
}
