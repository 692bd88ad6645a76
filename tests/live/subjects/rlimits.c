// Resource limits, lowered in two processes in different ways, among them ones that hinder a careless restore.
#include <sys/resource.h>

#include "subject.h"

static void lower(int resource, rlim_t soft, rlim_t hard) {
  struct rlimit limit;
  REQUIRE(getrlimit(resource, &limit) == 0);
  if (hard < limit.rlim_max) limit.rlim_max = hard;
  limit.rlim_cur = soft < limit.rlim_max ? soft : limit.rlim_max;
  REQUIRE(setrlimit(resource, &limit) == 0);
}

static void read_all(struct rlimit* limits) {
  for (int i = 0; i < RLIM_NLIMITS; i++) REQUIRE(getrlimit(i, &limits[i]) == 0);
}

static void compare(const struct rlimit* before) {
  struct rlimit now[RLIM_NLIMITS];
  read_all(now);
  for (int i = 0; i < RLIM_NLIMITS; i++)
    CHECK(now[i].rlim_cur == before[i].rlim_cur && now[i].rlim_max == before[i].rlim_max,
          "limit %d is %llu/%llu, was %llu/%llu", i, (unsigned long long)now[i].rlim_cur,
          (unsigned long long)now[i].rlim_max, (unsigned long long)before[i].rlim_cur,
          (unsigned long long)before[i].rlim_max);
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  struct rlimit before[RLIM_NLIMITS];
  lower(RLIMIT_CORE, 0, 1 << 20);
  lower(RLIMIT_CPU, 1000, 2000);
  pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    lower(RLIMIT_NOFILE, 5, 16);  // fewer than a restore may want to hold
    lower(RLIMIT_AS, 64 << 20, 128 << 20);
    lower(RLIMIT_DATA, 16 << 20, 32 << 20);
    lower(RLIMIT_STACK, 1 << 20, 4 << 20);
    lower(RLIMIT_MEMLOCK, 0, 0);
    lower(RLIMIT_FSIZE, 4096, 8192);
    lower(RLIMIT_SIGPENDING, 3, 5);
    lower(RLIMIT_MSGQUEUE, 1000, 1000);
    lower(RLIMIT_NICE, 5, 5);
    read_all(before);
    subject_write_file("child", "up\n");
    while (subject_next()) {
      compare(before);
      subject_part("child");
    }
    _exit(subject_status());
  }
  REQUIRE(WAIT_UNTIL(access(subject_path("child"), F_OK) == 0));
  lower(RLIMIT_NPROC, 5000, 6000);
  read_all(before);
  for (subject_ready(); subject_next(); subject_verdict()) {
    compare(before);
    subject_collect("child");
    subject_join(child);
  }
  return subject_status();
}
