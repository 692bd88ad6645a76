// Credentials of three processes: a task that dropped all privilege, one with odd ids and some capabilities, and
// one with root's ids but a reduced bounding set and securebits.
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <signal.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "subject.h"

struct credentials {
  uid_t uid[4];
  gid_t gid[4];
  gid_t groups[32];
  int group_count;
  struct __user_cap_data_struct caps[2];
  uint64_t bounding, ambient;
  int securebits, keepcaps, no_new_privs, dumpable;
};

static void read_ids(struct credentials* now) {
  char text[4096], *line;
  REQUIRE(subject_read_file("/proc/thread-self/status", text, sizeof text) > 0);
  if ((line = strstr(text, "\nUid:")) != NULL)
    sscanf(line, "\nUid: %u %u %u %u", &now->uid[0], &now->uid[1], &now->uid[2], &now->uid[3]);
  if ((line = strstr(text, "\nGid:")) != NULL)
    sscanf(line, "\nGid: %u %u %u %u", &now->gid[0], &now->gid[1], &now->gid[2], &now->gid[3]);
}

static struct credentials read_credentials(void) {
  struct credentials now = {0};
  read_ids(&now);
  now.group_count = getgroups(32, now.groups);
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  REQUIRE(syscall(SYS_capget, &header, now.caps) == 0);
  for (int cap = 0; cap < 64; cap++) {
    if (prctl(PR_CAPBSET_READ, cap) == 1) now.bounding |= 1ul << cap;
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, cap, 0, 0) == 1) now.ambient |= 1ul << cap;
  }
  now.securebits = prctl(PR_GET_SECUREBITS);
  now.keepcaps = prctl(PR_GET_KEEPCAPS);
  now.no_new_privs = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
  now.dumpable = prctl(PR_GET_DUMPABLE);
  return now;
}

static void compare(const struct credentials* before) {
  struct credentials now = read_credentials();
  CHECK(memcmp(before->uid, now.uid, sizeof now.uid) == 0, "uids %u %u %u %u", now.uid[0], now.uid[1], now.uid[2],
        now.uid[3]);
  CHECK(memcmp(before->gid, now.gid, sizeof now.gid) == 0, "gids %u %u %u %u", now.gid[0], now.gid[1], now.gid[2],
        now.gid[3]);
  CHECK(before->group_count == now.group_count && memcmp(before->groups, now.groups, sizeof now.groups) == 0, "groups");
  CHECK(memcmp(before->caps, now.caps, sizeof now.caps) == 0, "capabilities: effective %#x %#x", now.caps[0].effective,
        now.caps[1].effective);
  CHECK(before->bounding == now.bounding, "bounding set %#lx", now.bounding);
  CHECK(before->ambient == now.ambient, "ambient set %#lx", now.ambient);
  CHECK(before->securebits == now.securebits, "securebits %#x", (unsigned)now.securebits);
  CHECK(before->keepcaps == now.keepcaps && before->no_new_privs == now.no_new_privs, "keepcaps, no_new_privs");
  CHECK(before->dumpable == now.dumpable, "dumpable is %d, was %d", now.dumpable, before->dumpable);
}

static void set_caps(uint32_t effective, uint32_t permitted, uint32_t inheritable) {
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct caps[2] = {{effective, permitted, inheritable}, {0, 0, 0}};
  REQUIRE(syscall(SYS_capset, &header, caps) == 0);
}

static void become_odd(void) {
  const gid_t groups[] = {900, 7, 100000, 8};
  REQUIRE(setgroups(4, groups) == 0);
  REQUIRE(prctl(PR_SET_KEEPCAPS, 1) == 0);
  REQUIRE(setresgid(101, 102, 103) == 0 && setresuid(201, 202, 203) == 0);
  const uint32_t keep = 1u << CAP_SETUID | 1u << CAP_SYS_NICE | 1u << CAP_NET_BIND_SERVICE;
  set_caps(keep, keep, 1u << CAP_SYS_NICE);
  setfsuid(203);
  setfsgid(103);
  REQUIRE(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_SYS_NICE, 0, 0) == 0);
  REQUIRE(prctl(PR_SET_DUMPABLE, 1) == 0);
}

static void become_reduced_root(void) {
  REQUIRE(prctl(PR_CAPBSET_DROP, CAP_SYS_MODULE) == 0 && prctl(PR_CAPBSET_DROP, CAP_SYS_TIME) == 0);
  REQUIRE(prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP | SECBIT_KEEP_CAPS | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED) ==
          0);
  REQUIRE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
}

static void become_nobody(void) {
  REQUIRE(setgroups(0, NULL) == 0 && setresgid(65534, 65534, 65534) == 0 && setresuid(65534, 65534, 65534) == 0);
  REQUIRE(prctl(PR_GET_DUMPABLE) != 1);  // the kernel clears it: such a task must be dumped all the same
}

static pid_t start(const char* tag, void (*become)(void)) {
  pid_t child = fork();
  if (child != 0) return child;
  become();
  struct credentials before = read_credentials();
  subject_write_file(tag, "up\n");
  while (subject_next()) {
    compare(&before);
    subject_part(tag);
  }
  _exit(subject_status());
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  if (geteuid() != 0) subject_skip("root's privileges");
  REQUIRE(chmod(subject_dir, 0777) == 0);
  static const char* const kTags[] = {"odd", "reduced", "nobody"};
  void (*const become[])(void) = {become_odd, become_reduced_root, become_nobody};
  pid_t children[3];
  for (int i = 0; i < 3; i++) {
    children[i] = start(kTags[i], become[i]);
    REQUIRE(children[i] > 0 && WAIT_UNTIL(access(subject_path(kTags[i]), F_OK) == 0));
  }
  struct credentials before = read_credentials();
  for (subject_ready(); subject_next(); subject_verdict()) {
    compare(&before);
    for (int i = 0; i < 3; i++) {
      subject_collect(kTags[i]);
      subject_join(children[i]);
    }
  }
  return subject_status();
}
