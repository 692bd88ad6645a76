// How the task presents itself: command line (partly overwritten), environment, auxiliary vector, name, the link
// to its program, personality, dumpable.
#include <sys/auxv.h>
#include <sys/personality.h>
#include <sys/prctl.h>

#include "subject.h"

struct text {
  char bytes[16384];
  ssize_t size;
};
static struct text before[4], now;
static const char* const kFiles[] = {"/proc/self/cmdline", "/proc/self/environ", "/proc/self/auxv", "/proc/self/comm"};

int main(int argc, char** argv) {
  subject_start(argc, argv);
  REQUIRE(prctl(PR_SET_NAME, "odd (name) %n\\") == 0);
  memcpy(argv[0], "#####", 5);  // what programs do that show their state in ps
  REQUIRE(personality(ADDR_NO_RANDOMIZE | STICKY_TIMEOUTS) >= 0);
  setenv("SUBJECT", "set after the start, so only in memory", 1);
  for (int i = 0; i < 4; i++) before[i].size = subject_read_file(kFiles[i], before[i].bytes, sizeof before[i].bytes);
  char exe_before[PATH_MAX] = "", exe_now[PATH_MAX];
  REQUIRE(readlink("/proc/self/exe", exe_before, sizeof exe_before - 1) > 0);
  unsigned long random_bytes = getauxval(AT_RANDOM), vdso = getauxval(AT_SYSINFO_EHDR);

  for (subject_ready(); subject_next(); subject_verdict()) {
    for (int i = 0; i < 4; i++) {
      now.size = subject_read_file(kFiles[i], now.bytes, sizeof now.bytes);
      CHECK(now.size == before[i].size && memcmp(now.bytes, before[i].bytes, (size_t)now.size) == 0, "%s", kFiles[i]);
    }
    memset(exe_now, 0, sizeof exe_now);
    CHECK(readlink("/proc/self/exe", exe_now, sizeof exe_now - 1) > 0 && strcmp(exe_now, exe_before) == 0, "exe is %s",
          exe_now);
    CHECK(personality(0xffffffff) == (ADDR_NO_RANDOMIZE | STICKY_TIMEOUTS), "personality %#x",
          (unsigned)personality(0xffffffff));
    CHECK(getauxval(AT_RANDOM) == random_bytes && getauxval(AT_SYSINFO_EHDR) == vdso, "the auxiliary vector in memory");
    CHECK(strcmp(getenv("SUBJECT"), "set after the start, so only in memory") == 0, "the environment in memory");
    CHECK(prctl(PR_GET_DUMPABLE) == 1, "dumpable is %d", prctl(PR_GET_DUMPABLE));
  }
  return subject_status();
}
