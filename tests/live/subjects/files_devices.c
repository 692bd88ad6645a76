// Character devices held open.
#include "subject.h"

static const struct {
  const char* path;
  int flags;
} kDevices[] = {{"/dev/null", O_RDWR},
                {"/dev/zero", O_RDONLY | O_CLOEXEC},
                {"/dev/full", O_WRONLY},
                {"/dev/urandom", O_RDONLY},
                {"/dev/random", O_RDONLY | O_NONBLOCK}};
enum { kCount = sizeof kDevices / sizeof *kDevices };

int main(int argc, char** argv) {
  subject_start(argc, argv);
  int fds[kCount];
  struct stat before[kCount];
  for (int i = 0; i < kCount; i++) {
    fds[i] = open(kDevices[i].path, kDevices[i].flags);
    REQUIRE(fds[i] >= 0 && fstat(fds[i], &before[i]) == 0);
  }
  for (subject_ready(); subject_next(); subject_verdict()) {
    for (int i = 0; i < kCount; i++) {
      struct stat now;
      CHECK(fstat(fds[i], &now) == 0 && S_ISCHR(now.st_mode) && now.st_rdev == before[i].st_rdev, "%s: device",
            kDevices[i].path);
      CHECK((fcntl(fds[i], F_GETFL) & (O_ACCMODE | O_NONBLOCK)) == (kDevices[i].flags & (O_ACCMODE | O_NONBLOCK)),
            "%s: flags", kDevices[i].path);
    }
    char bytes[16] = "xxxxxxxxxxxxxxx", random_bytes[16] = "";
    CHECK(write(fds[0], bytes, 16) == 16 && read(fds[0], bytes, 16) == 0, "/dev/null");
    CHECK(read(fds[1], bytes, 16) == 16 && memcmp(bytes, random_bytes, 16) == 0, "/dev/zero");
    CHECK(write(fds[2], bytes, 1) == -1 && errno == ENOSPC, "/dev/full");
    CHECK(read(fds[3], random_bytes, 16) == 16 && memcmp(bytes, random_bytes, 16) != 0, "/dev/urandom");
  }
  return subject_status();
}
