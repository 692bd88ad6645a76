// Threads under AppArmor profiles of their own: what each refuses is refused again. The profiles are loaded by the
// test.
#include <pthread.h>

#include "start_thread.h"
#include "subject.h"

// stasis_test refuses nothing of what is used here, stasis_strict no more than to read this file.
static const char refused_file[] = "/etc/passwd";
static const char* const profiles[] = {"unconfined", "stasis_test",
                                       "stasis_strict",  // The kernel sorts the names of a stack.
                                       "stasis_strict//&stasis_test"};
enum { kThreads = sizeof profiles / sizeof *profiles };

struct holder {
  pthread_t thread;
  int index;
  volatile int asked, answered;
  char failure[256];
};
static struct holder holders[kThreads];

static bool change_profile(const char* profile) {
  char command[128];
  snprintf(command, sizeof command, "changeprofile %s", profile);
  const int fd = open("/proc/thread-self/attr/apparmor/current", O_WRONLY | O_CLOEXEC);
  const bool done = fd >= 0 && write(fd, command, strlen(command)) == (ssize_t)strlen(command);
  if (fd >= 0) close(fd);
  return done;
}

static void look(struct holder* holder) {
  char label[128] = "";
  const char* const wanted = profiles[holder->index];
  if (subject_read_file("/proc/thread-self/attr/apparmor/current", label, sizeof label) <= 0 ||
      strncmp(label, wanted, strlen(wanted)) != 0) {
    snprintf(holder->failure, sizeof holder->failure, "thread %d is under %s", holder->index, label);
    return;
  }
  const int fd = open(refused_file, O_RDONLY | O_CLOEXEC);
  const bool refused = fd < 0 && errno == EACCES;
  if (fd >= 0) close(fd);
  if (refused != (strstr(wanted, "strict") != NULL))
    snprintf(holder->failure, sizeof holder->failure, "thread %d: %s is %s", holder->index, refused_file,
             refused ? "refused" : "opened");
}

static void* hold(void* argument) {
  struct holder* holder = argument;
  if (holder->index != 0 && !change_profile(profiles[holder->index]))
    snprintf(holder->failure, sizeof holder->failure, "it cannot change to %s: %s", profiles[holder->index],
             strerror(errno));
  for (;;) {
    while (holder->asked == holder->answered) sleep_ms(1);
    if (holder->failure[0] == '\0') look(holder);
    holder->answered++;
  }
  return NULL;
}

static void check_all(void) {
  for (int i = 0; i < kThreads; i++) {
    holders[i].asked++;
    CHECK(WAIT_UNTIL(holders[i].answered == holders[i].asked), "thread %d gives no answer", i);
    CHECK(holders[i].failure[0] == '\0', "%s", holders[i].failure);
  }
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  char loaded[65536];
  if (subject_read_file("/sys/kernel/security/apparmor/profiles", loaded, sizeof loaded) <= 0 ||
      strstr(loaded, "stasis_test ") == NULL || strstr(loaded, "stasis_strict ") == NULL)
    subject_skip("AppArmor, with the profiles of this test");
  for (int i = 0; i < kThreads; i++) {
    holders[i].index = i;
    start_thread(&holders[i].thread, hold, &holders[i]);
  }
  check_all();
  if (subject_failed_ever) die("%s", subject_failure);
  for (subject_ready(); subject_next(); subject_verdict()) check_all();
  return subject_status();
}
