// The contract between a subject program and the driver.
//
// A subject is started with one argument, a directory. It sets up one kind of state and then runs
//
//   for (subject_ready(); subject_next(); subject_verdict()) { ... CHECK(condition, "text") ... }
//
// The driver asks for a check by writing "GENERATION" or "GENERATION last" into the file `check`; the subject
// looks at its state and answers in `result` with "GENERATION PASS" or "GENERATION FAIL: reason". After the last
// one it exits with 0 or 1. A check leaves the state as it was, so that it can be asked for again.
//
// Only the file system is used for this, and no descriptor stays open: the protocol adds no state of its own.
// Further processes of a subject answer through subject_part()/subject_collect().
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { kPageBytes = 4096, kPollMs = 5, kPatienceMs = 10000 };

static char subject_dir[PATH_MAX];
static int subject_generation;
static bool subject_last;
static bool subject_failed_ever;
static char subject_failure[512];

__attribute__((unused)) static void sleep_ms(long ms) {
  struct timespec left = {ms / 1000, ms % 1000 * 1000000};
  while (nanosleep(&left, &left) != 0 && errno == EINTR) {
  }
}

__attribute__((unused)) static double clock_s(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

// Set-up that fails is a defect of the test or of the machine, not of a checkpoint: tell and leave.
__attribute__((unused, format(printf, 1, 2))) static void die(const char* format, ...) {
  int saved = errno;
  va_list args;
  va_start(args, format);
  vfprintf(stderr, format, args);
  va_end(args);
  fprintf(stderr, " (errno %d: %s)\n", saved, strerror(saved));
  _exit(3);
}
#define REQUIRE(condition)                                              \
  do {                                                                  \
    if (!(condition)) die("%s:%d: %s", __FILE__, __LINE__, #condition); \
  } while (0)

// The machine cannot hold this state at all: the driver reports the test as skipped, with this text.
__attribute__((unused)) static void subject_skip(const char* missing_feature) {
  fprintf(stderr, "SKIP: %s\n", missing_feature);
  _exit(77);
}

__attribute__((unused, format(printf, 1, 2))) static void subject_fail(const char* format, ...) {
  subject_failed_ever = true;
  if (subject_failure[0] != '\0') return;  // the first reason is the one that helps
  va_list args;
  va_start(args, format);
  vsnprintf(subject_failure, sizeof subject_failure, format, args);
  va_end(args);
}
#define CHECK(condition, ...)                                                                                    \
  do {                                                                                                           \
    if (!(condition)) {                                                                                          \
      int check_errno = errno;                                                                                   \
      char check_text[256];                                                                                      \
      snprintf(check_text, sizeof check_text, __VA_ARGS__);                                                      \
      subject_fail("%s [%s:%d: %s; errno %d]", check_text, strrchr("/" __FILE__, '/') + 1, __LINE__, #condition, \
                   check_errno);                                                                                 \
    }                                                                                                            \
  } while (0)

// A name below the subject's directory; up to four results live at a time.
static const char* subject_path(const char* name) {
  enum { kPathBytes = PATH_MAX + NAME_MAX + 2 };
  static _Thread_local char paths[4][kPathBytes];
  static _Thread_local unsigned turn;
  char* path = paths[turn++ % 4];
  snprintf(path, kPathBytes, "%s/%s", subject_dir, name);
  return path;
}

static void subject_write_file(const char* name, const char* text) {
  char temporary[128];
  snprintf(temporary, sizeof temporary, "%s.tmp", name);
  int fd = open(subject_path(temporary), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text)) die("cannot write %s", temporary);
  close(fd);
  if (rename(subject_path(temporary), subject_path(name)) != 0) die("cannot rename %s", temporary);
}

// Bytes read, or -1 when there is no such file. The text is always terminated.
static ssize_t subject_read_file(const char* path, char* text, size_t size) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  size_t have = 0;
  ssize_t got = 0;
  while (have + 1 < size && (got = read(fd, text + have, size - 1 - have)) > 0) have += (size_t)got;
  close(fd);
  text[have] = '\0';
  return got < 0 ? -1 : (ssize_t)have;
}

__attribute__((unused)) static void subject_start(int argc, char** argv) {
  if (argc < 2 || realpath(argv[1], subject_dir) == NULL) die("usage: %s DIRECTORY", argv[0]);
}

__attribute__((unused)) static void subject_ready(void) {
  char text[32];
  snprintf(text, sizeof text, "READY %d\n", getpid());
  subject_write_file("ready", text);
}

// Is there a request that was not answered yet? Does not wait.
static bool subject_asked(void) {
  char text[64];
  if (subject_last || subject_read_file(subject_path("check"), text, sizeof text) <= 0) return false;
  int generation = atoi(text);
  if (generation <= subject_generation) return false;
  subject_generation = generation;
  subject_last = strstr(text, "last") != NULL;
  return true;
}

// Waits for the next request; false after the last one was answered.
__attribute__((unused)) static bool subject_next(void) {
  if (subject_last) return false;
  while (!subject_asked()) sleep_ms(kPollMs);
  return true;
}

static void subject_answer(const char* file) {
  char text[600];
  if (subject_failure[0] != '\0')
    snprintf(text, sizeof text, "%d FAIL: %s\n", subject_generation, subject_failure);
  else
    snprintf(text, sizeof text, "%d PASS\n", subject_generation);
  subject_failure[0] = '\0';
  subject_write_file(file, text);
}
__attribute__((unused)) static void subject_verdict(void) {
  subject_answer("result");
}
__attribute__((unused)) static int subject_status(void) {
  return subject_failed_ever ? 1 : 0;
}

// A further process of the subject answers in a file of its own.
__attribute__((unused)) static void subject_part(const char* tag) {
  char file[64];
  snprintf(file, sizeof file, "part.%s", tag);
  subject_answer(file);
}

// The main process takes over the answer of that part for the present generation.
__attribute__((unused)) static void subject_collect(const char* tag) {
  char file[64];
  char text[600];
  snprintf(file, sizeof file, "part.%s", tag);
  for (int waited_ms = 0; waited_ms < kPatienceMs; waited_ms += kPollMs) {
    if (subject_read_file(subject_path(file), text, sizeof text) > 0 && atoi(text) == subject_generation) {
      const char* verdict = strchr(text, ' ');
      if (verdict == NULL || strncmp(verdict, " PASS", 5) != 0) subject_fail("%s: %.400s", tag, text);
      return;
    }
    sleep_ms(kPollMs);
  }
  subject_fail("%s gave no answer", tag);
}

// At the end of the last generation: the child must leave with status 0 in some seconds.
__attribute__((unused)) static void subject_join(pid_t child) {
  if (!subject_last) return;
  int status = 0;
  for (int waited_ms = 0; waited_ms < kPatienceMs; waited_ms += kPollMs) {
    pid_t got = waitpid(child, &status, WNOHANG);
    if (got == child) {
      CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "child %d ended with status %#x", child, (unsigned)status);
      return;
    }
    if (got < 0) {
      CHECK(false, "child %d cannot be waited for", child);
      return;
    }
    sleep_ms(kPollMs);
  }
  subject_fail("child %d does not end", child);
}

// Waits until the expression holds, with the usual patience; its value.
#define WAIT_UNTIL(condition)                                                                            \
  ({                                                                                                     \
    int until_waited_ms = 0;                                                                             \
    while (!(condition) && until_waited_ms < kPatienceMs) sleep_ms(kPollMs), until_waited_ms += kPollMs; \
    (condition);                                                                                         \
  })

// A page content that tells which page of which area it is.
__attribute__((unused)) static void fill_page(void* page, uint64_t salt) {
  uint64_t x = salt * 0x9e3779b97f4a7c15u + 1;
  uint64_t* words = page;
  for (size_t i = 0; i < kPageBytes / sizeof *words; i++) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    words[i] = x;
  }
}
__attribute__((unused)) static bool page_holds(const void* page, uint64_t salt) {
  uint64_t wanted[kPageBytes / sizeof(uint64_t)];
  fill_page(wanted, salt);
  return memcmp(page, wanted, kPageBytes) == 0;
}
__attribute__((unused)) static bool page_is_zero(const void* page) {
  const char* bytes = page;
  return bytes[0] == 0 && memcmp(bytes, bytes + 1, kPageBytes - 1) == 0;
}

// The pagemap word of an address in this process (see the kernel's pagemap documentation: bit 63 present,
// bit 61 file page or shared, bits 0-54 frame number, which only a privileged reader sees).
__attribute__((unused)) static uint64_t pagemap_word(const void* address) {
  uint64_t word = 0;
  int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  if (pread(fd, &word, sizeof word, (off_t)((uintptr_t)address / kPageBytes * sizeof word)) != sizeof word) word = 0;
  close(fd);
  return word;
}
