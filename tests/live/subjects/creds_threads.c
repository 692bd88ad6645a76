// Credentials belong to threads: three of them have ids, groups, capabilities, securebits and no_new_privs of their
// own, set by the bare system calls, beside a leader that is root. The process has an audit login uid, too.
#include <linux/capability.h>
#include <linux/securebits.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "subject.h"

enum { kThreads = 3, kStatusBytes = 4096 };

static _Atomic int go, done, ready;

// The lines of /proc/thread-self/status that tell of credentials, and what is not among them.
static void describe(char* text, size_t size) {
  static const char* const kLines[] = {"\nUid:",    "\nGid:",    "\nGroups:", "\nCapInh:",    "\nCapPrm:",
                                       "\nCapEff:", "\nCapBnd:", "\nCapAmb:", "\nNoNewPrivs:"};
  char status[kStatusBytes];
  size_t used = 0;
  REQUIRE(subject_read_file("/proc/thread-self/status", status, sizeof status) > 0);
  for (size_t i = 0; i < sizeof kLines / sizeof *kLines; i++) {
    const char* line = strstr(status, kLines[i]);
    REQUIRE(line != NULL);
    used += (size_t)snprintf(text + used, size - used, "%.*s", (int)strcspn(line + 1, "\n") + 1, line);
    REQUIRE(used < size);
  }
  snprintf(text + used, size - used, "\nsecurebits %#x", (unsigned)prctl(PR_GET_SECUREBITS));
}

static void set_caps(uint32_t effective, uint32_t permitted, uint32_t inheritable) {
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct caps[2] = {{effective, permitted, inheritable}, {0, 0, 0}};
  REQUIRE(syscall(SYS_capset, &header, caps) == 0);
}

static void change(long which) {
  if (which == 0) {  // an ordinary user with groups, and no way up
    const gid_t groups[] = {9, 5, 70000};
    REQUIRE(syscall(SYS_setgroups, 3, groups) == 0);
    REQUIRE(syscall(SYS_setresgid, 301, 302, 303) == 0 && syscall(SYS_setresuid, 401, 402, 403) == 0);
    syscall(SYS_setfsgid, 303);
    syscall(SYS_setfsuid, 403);
    REQUIRE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
  } else if (which == 1) {  // a user with some capabilities, one of them ambient, one only permitted
    REQUIRE(prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP | SECBIT_NOROOT | SECBIT_NOROOT_LOCKED) == 0);
    REQUIRE(prctl(PR_CAPBSET_DROP, CAP_SYS_TIME) == 0 && syscall(SYS_setresuid, 501, 501, 501) == 0);
    const uint32_t some = 1u << CAP_NET_RAW | 1u << CAP_KILL;
    set_caps(1u << CAP_NET_RAW, some, some);
    REQUIRE(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_RAW, 0, 0) == 0);
  } else {  // root without capabilities in effect
    set_caps(0, ~0u & ~(1u << CAP_SYS_RESOURCE) & ~(1u << CAP_SYS_BOOT), 0);
  }
}

static void* run(void* argument) {
  const long which = (long)(intptr_t)argument;
  char before[kStatusBytes], now[kStatusBytes];
  change(which);
  describe(before, sizeof before);
  ready++;
  for (int turn = 1;; turn++) {
    while (go < turn) sleep_ms(1);
    describe(now, sizeof now);
    CHECK(strcmp(before, now) == 0, "thread %ld has%s", which, now);
    done++;
  }
  return NULL;
}

static bool login_uid_is(unsigned wanted) {
  char text[32] = "";
  return subject_read_file("/proc/self/loginuid", text, sizeof text) > 0 && strtoul(text, NULL, 10) == wanted;
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  if (geteuid() != 0) subject_skip("root's privileges");
  REQUIRE(chmod(subject_dir, 0777) == 0);
  int fd = open("/proc/self/loginuid", O_WRONLY | O_CLOEXEC);
  const bool has_login_uid = fd >= 0 && write(fd, "4711", 4) == 4;
  if (fd >= 0) close(fd);
  char before[kStatusBytes], now[kStatusBytes];
  describe(before, sizeof before);
  for (long i = 0; i < kThreads; i++) {
    pthread_t thread;
    REQUIRE(pthread_create(&thread, NULL, run, (void*)(intptr_t)i) == 0 && WAIT_UNTIL(ready == i + 1));
  }
  subject_ready();
  for (int turn = 1; subject_next(); turn++) {
    describe(now, sizeof now);
    CHECK(strcmp(before, now) == 0, "the leader has%s", now);
    CHECK(!has_login_uid || login_uid_is(4711), "the login uid changed");
    go = turn;
    CHECK(WAIT_UNTIL(done == kThreads), "the threads do not answer");
    done = 0;
    subject_verdict();
  }
  return subject_status();
}
