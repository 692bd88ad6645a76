// A lease to write on a file that is mapped, too: a restore would open the file once more, and not get the lease.
#include <sys/mman.h>

#include "subject.h"

int main(int argc, char** argv) {
  subject_start(argc, argv);
  int fd = open(subject_path("file"), O_RDWR | O_CREAT, 0600);
  REQUIRE(fd >= 0 && ftruncate(fd, 4096) == 0);
  char* page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  REQUIRE(page != MAP_FAILED && fcntl(fd, F_SETLEASE, F_WRLCK) == 0);
  for (subject_ready(); subject_next(); subject_verdict())
    CHECK(fcntl(fd, F_GETLEASE) == F_WRLCK && page[0] == 0, "the lease is %d", fcntl(fd, F_GETLEASE));
  return subject_status();
}
