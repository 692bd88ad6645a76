// A thread that may make no devices any more, by a Landlock domain; the leader may. The rules cannot be read back.
#include <linux/landlock.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "subject.h"

static int asked, answered = -1;
static bool refused;

static bool device_is_refused(void) {
  const char* path = subject_path("device");
  int failed = mknod(path, S_IFCHR | 0600, 0x103) != 0 ? errno : 0;
  unlink(path);
  return failed == EACCES;
}

static void* restricted(void* argument) {
  struct landlock_ruleset_attr rules = {.handled_access_fs = LANDLOCK_ACCESS_FS_MAKE_CHAR};
  int fd = (int)syscall(SYS_landlock_create_ruleset, &rules, sizeof rules, 0);
  if (fd < 0) subject_skip("Landlock");
  REQUIRE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && syscall(SYS_landlock_restrict_self, fd, 0) == 0);
  close(fd);
  for (int done = 0;; done++) {
    refused = device_is_refused();
    __atomic_store_n(&answered, done, __ATOMIC_RELEASE);
    while (__atomic_load_n(&asked, __ATOMIC_ACQUIRE) == done) sleep_ms(1);
  }
  return argument;
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  if (geteuid() != 0) subject_skip("root's privileges");
  pthread_t thread;
  REQUIRE(pthread_create(&thread, NULL, restricted, NULL) == 0);
  REQUIRE(WAIT_UNTIL(__atomic_load_n(&answered, __ATOMIC_ACQUIRE) == 0) && refused);
  // A restore without the domain is told to the subject by this file.
  for (subject_ready(); subject_next(); subject_verdict()) {
    bool lossy = access(subject_path("lossy"), F_OK) == 0;
    int turn = __atomic_add_fetch(&asked, 1, __ATOMIC_RELEASE);
    CHECK(WAIT_UNTIL(__atomic_load_n(&answered, __ATOMIC_ACQUIRE) == turn), "the thread gives no answer");
    CHECK(refused == !lossy, "the thread may%s make devices", refused ? " not" : "");
    CHECK(!device_is_refused(), "the leader may make no devices");
  }
  return subject_status();
}
