// Leases: to read and to write, by a duplicate, held by a child alone, and some that are being broken. Nobody gets a
// signal a second time, and the next conflict is told.
#include <signal.h>

#include "subject.h"

static volatile sig_atomic_t signals, last_fd;
static void on_signal(int signal, siginfo_t* info, void* context) {
  (void)signal;
  (void)context;
  signals++;
  last_fd = info->si_fd;
}

// The driver opens what is in the directory of the subject itself.
static const char* path_of(const char* name) {
  char text[64];
  snprintf(text, sizeof text, "leased/%s", name);
  return subject_path(text);
}
static int make(const char* name, int flags) {
  int made = open(path_of(name), O_RDWR | O_CREAT, 0700);
  REQUIRE(made >= 0);
  close(made);
  int fd = open(path_of(name), flags);
  REQUIRE(fd >= 0);
  return fd;
}
static int lease(const char* name, int flags, int type) {
  int fd = make(name, flags);
  REQUIRE(fcntl(fd, F_SETLEASE, type) == 0 && fcntl(fd, F_SETSIG, SIGRTMIN) == 0);
  return fd;
}
// Whether the open has to wait for the holder; opens begin to break the lease.
static bool conflicts(const char* name, int flags) {
  int fd = open(path_of(name), flags | O_NONBLOCK);
  if (fd >= 0) close(fd);
  return fd < 0 && errno == EWOULDBLOCK;
}
static int type_of(int fd) {
  return fcntl(fd, F_GETLEASE);
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO};
  REQUIRE(sigaction(SIGRTMIN, &action, NULL) == 0);
  REQUIRE(mkdir(subject_path("leased"), 0700) == 0);
  int reads = lease("reads", O_RDONLY, F_RDLCK), writes = lease("writes", O_RDWR, F_WRLCK);
  int sibling = open(path_of("reads"), O_RDONLY), duplicate = dup(writes);
  int unlocking = lease("unlocking", O_RDONLY, F_RDLCK), downgrading = lease("downgrading", O_RDONLY, F_WRLCK);
  int giving_up = lease("giving up", O_RDWR, F_WRLCK);
  int of_child = make("child", O_RDONLY);
  REQUIRE(conflicts("unlocking", O_WRONLY) && conflicts("downgrading", O_RDONLY) && conflicts("giving up", O_RDWR));
  REQUIRE(WAIT_UNTIL(signals == 3));
  pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    REQUIRE(fcntl(of_child, F_SETLEASE, F_RDLCK) == 0);
    subject_write_file("up", "up\n");
    while (subject_next()) {
      CHECK(type_of(of_child) == F_RDLCK, "the lease that only the child has is %d", type_of(of_child));
      subject_part("child");
    }
    _exit(subject_status());
  }
  REQUIRE(WAIT_UNTIL(access(subject_path("up"), F_OK) == 0));
  close(of_child);

  for (subject_ready(); subject_next(); subject_verdict()) {
    CHECK(signals == 3, "%d signals", (int)signals);
    CHECK(type_of(reads) == F_RDLCK && type_of(sibling) == F_UNLCK, "the lease to read is %d", type_of(reads));
    CHECK(type_of(writes) == F_WRLCK && type_of(duplicate) == F_WRLCK, "the lease to write is %d", type_of(writes));
    CHECK(type_of(unlocking) == F_UNLCK && type_of(downgrading) == F_RDLCK && type_of(giving_up) == F_UNLCK,
          "leases that are being broken are %d, %d and %d", type_of(unlocking), type_of(downgrading),
          type_of(giving_up));
    CHECK(conflicts("unlocking", O_WRONLY) && conflicts("downgrading", O_RDONLY) && conflicts("giving up", O_WRONLY) &&
              signals == 3,
          "leases are not being broken any more, or again: %d signals", (int)signals);
    struct f_owner_ex owner;
    CHECK(fcntl(unlocking, F_GETOWN_EX, &owner) == 0 && owner.pid == getpid() && fcntl(unlocking, F_GETSIG) == SIGRTMIN,
          "who is told of the lease");
    subject_collect("child");
    if (!subject_last) continue;
    CHECK(conflicts("reads", O_WRONLY) && WAIT_UNTIL(signals == 4) && last_fd == reads, "conflict: %d signals, of %d",
          (int)signals, (int)last_fd);
    CHECK(conflicts("writes", O_RDONLY) && WAIT_UNTIL(signals == 5) && last_fd == writes, "conflict: %d signals, of %d",
          (int)signals, (int)last_fd);
    CHECK(fcntl(downgrading, F_SETLEASE, F_RDLCK) == 0 && !conflicts("downgrading", O_RDONLY), "downgrading");
    CHECK(fcntl(unlocking, F_SETLEASE, F_UNLCK) == 0 && !conflicts("unlocking", O_WRONLY), "unlocking");
    subject_join(child);
  }
  return subject_status();
}
