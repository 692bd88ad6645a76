// Five children with two children each. Every task checks its relations and its copy of memory that was written
// before the forks, by itself only, and after them.
#include <sys/mman.h>

#include "subject.h"

enum { kChildren = 5, kGrandchildren = 2, kPages = 24 };
static char* area;

static void check_memory(int identity) {
  for (int i = 0; i < kPages; i++) {
    uint64_t salt = (uint64_t)i;
    if (i % 3 == 1) salt = (uint64_t)(i + 1000 * (identity / 10));    // written by the child of first order
    if (i % 3 == 2) salt = (uint64_t)(i + 100000 + 1000 * identity);  // written by the task itself
    CHECK(page_holds(area + i * kPageBytes, salt), "task %d: page %d", identity, i);
  }
}
static void write_pages(int remainder, uint64_t salt) {
  for (int i = remainder; i < kPages; i += 3) fill_page(area + i * kPageBytes, salt + (uint64_t)i);
}

static int child_identity(int identity, int i) {
  return identity == 0 ? (i + 1) * 10 : identity + i + 1;
}

static void serve(int identity, const pid_t* children, int count, pid_t parent) {
  char tag[32];
  pid_t own = getpid(), group = getpgid(0), session = getsid(0);
  write_pages(2, 100000 + 1000 * (uint64_t)identity);
  for (int i = 0; i < count; i++) {
    snprintf(tag, sizeof tag, "up.%d", child_identity(identity, i));
    REQUIRE(WAIT_UNTIL(access(subject_path(tag), F_OK) == 0));
  }
  snprintf(tag, sizeof tag, "up.%d", identity);
  subject_write_file(tag, "up\n");
  if (identity == 0) subject_ready();
  while (subject_next()) {
    CHECK(getpid() == own && getpgid(0) == group && getsid(0) == session, "task %d: pid, group or session", identity);
    if (parent != 0) CHECK(getppid() == parent, "task %d: parent %d, was %d", identity, getppid(), parent);
    check_memory(identity);
    for (int i = 0; i < count; i++) {
      snprintf(tag, sizeof tag, "%d", child_identity(identity, i));
      subject_collect(tag);
      subject_join(children[i]);
    }
    snprintf(tag, sizeof tag, "%d", identity);
    if (identity == 0)
      subject_verdict();
    else
      subject_part(tag);
  }
  _exit(subject_status());
}

static void child_main(int identity, pid_t parent) {
  write_pages(1, 1000 * (uint64_t)(identity / 10));
  pid_t grandchildren[kGrandchildren];
  for (int i = 0; i < kGrandchildren; i++) {
    pid_t self = getpid();
    grandchildren[i] = fork();
    REQUIRE(grandchildren[i] >= 0);
    if (grandchildren[i] == 0) serve(child_identity(identity, i), NULL, 0, self);
  }
  serve(identity, grandchildren, kGrandchildren, parent);
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  area = mmap(NULL, kPages * kPageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  REQUIRE(area != MAP_FAILED);
  write_pages(0, 0);
  write_pages(1, 0);
  pid_t children[kChildren], self = getpid();
  for (int i = 0; i < kChildren; i++) {
    children[i] = fork();
    REQUIRE(children[i] >= 0);
    if (children[i] == 0) child_main(child_identity(0, i), self);
  }
  serve(0, children, kChildren, 0);
}
