// Ends the tool with SIGKILL at its k-th system call, for every k until a run gets through, and looks after each
// kill whether the program under checkpoint goes on.
//
//   kill_everywhere --stasis BINARY --subject HEARTBEAT20 --base DIRECTORY [--verb dump|restore]
//                   [--snapshot auto|fork] [--stride N] [--first K]
//
// dump:    after every kill all twenty heartbeats go on within a second, nobody is stopped or traced, and no thread or
//          living child was left. The same program serves all kills; now and then a whole dump must succeed.
// restore: after every kill there is nothing, or the whole program, and it runs.
//
// The tool is traced for this; the tasks that the tool traces are not touched. A kill between two system calls of
// a process is the same as one at the entry of the later, so the entries are all the moments there are.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
  kThreads = 20,
  kPageBytes = 4096,
  kPatienceMs = 1000,  // within which every heart must beat again
  kToolSeconds = 20,   // a run of the tool that takes longer hangs
  kWholeDumpEvery = 50,
  kRenewEvery = 200,
  kPathBytes = PATH_MAX + 64
};

struct cell {  // as in the subject heartbeat20
  volatile uint64_t count;
  volatile uint64_t wrong;
  char pad[48];
};

static const char *stasis, *subject_program, *base, *verb = "dump", *snapshot = "auto";
static char directory[PATH_MAX], images[kPathBytes], subject_directory[kPathBytes];
static pid_t subject;
static struct cell* cells;
static long current_k;

static double now_s(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}
static void sleep_ms(long ms) {
  struct timespec left = {ms / 1000, ms % 1000 * 1000000};
  nanosleep(&left, NULL);
}

static void remove_directory(const char* path) {
  DIR* list = opendir(path);
  if (list == NULL) return;
  for (struct dirent* entry; (entry = readdir(list)) != NULL;) {
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    char child[kPathBytes + 256];
    snprintf(child, sizeof child, "%s/%s", path, entry->d_name);
    if (entry->d_type == DT_DIR)
      remove_directory(child);
    else
      unlink(child);
  }
  closedir(list);
  rmdir(path);
}

// Ends what this program started: the subject is the only task that can be left.
static void clean_up(void) {
  if (subject > 0) kill(subject, SIGKILL);
  while (waitpid(-1, NULL, 0) > 0) {
  }
  if (directory[0] != '\0') remove_directory(directory);
}

// What the tool wrote to its log last.
static void show_log(void) {
  char path[kPathBytes + 32], tail[2048];
  snprintf(path, sizeof path, "%s/%s.log", images, verb);
  FILE* log = fopen(path, "re");
  if (log == NULL) return;
  if (fseek(log, -(long)sizeof tail, SEEK_END) != 0) rewind(log);
  size_t got = fread(tail, 1, sizeof tail, log);
  fclose(log);
  fprintf(stderr, "--- the end of %s.log ---\n%.*s\n", verb, (int)got, tail);
}

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char* format, ...) {
  va_list args;
  va_start(args, format);
  fprintf(stderr, "FAILED at system call %ld: ", current_k);
  vfprintf(stderr, format, args);
  fputc('\n', stderr);
  va_end(args);
  show_log();
  clean_up();
  exit(1);
}

static bool read_text(const char* path, char* text, size_t size) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  ssize_t got = read(fd, text, size - 1);
  close(fd);
  text[got > 0 ? got : 0] = '\0';
  return got > 0;
}

static void start_subject(void) {
  subject = fork();
  if (subject == 0) {
    setsid();
    int null = open("/dev/null", O_RDWR);
    for (int fd = 0; fd < 3; fd++) dup2(null, fd);
    close_range(3, ~0u, 0);  // what the caller of this test has open is not part of it
    execl(subject_program, subject_program, subject_directory, (char*)NULL);
    _exit(127);
  }
  char path[kPathBytes + 16], text[64];
  snprintf(path, sizeof path, "%s/ready", subject_directory);
  for (int waited_ms = 0; !read_text(path, text, sizeof text); waited_ms += 5) {
    if (waited_ms > 10000) fail("the subject does not get ready");
    sleep_ms(5);
  }
  snprintf(path, sizeof path, "%s/beats", subject_directory);
  int fd = open(path, O_RDWR | O_CLOEXEC);
  cells = fd < 0 ? MAP_FAILED : mmap(NULL, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (cells == MAP_FAILED) fail("cannot map %s", path);
  close(fd);
}

// --- looking at the subject ---

// State letter and tracer of a task, from its status file.
static bool look_at_task(const char* tid, char* state, int* tracer) {
  char path[128], text[2048];
  snprintf(path, sizeof path, "/proc/%d/task/%s/status", subject, tid);
  if (!read_text(path, text, sizeof text)) return false;
  const char* state_line = strstr(text, "\nState:\t");
  const char* tracer_line = strstr(text, "\nTracerPid:\t");
  if (state_line == NULL || tracer_line == NULL) return false;
  *state = state_line[8];
  *tracer = atoi(tracer_line + 12);
  return true;
}

// The number of threads; *trouble tells what is not as it should be, or is empty.
static int look_at_threads(char* trouble, size_t size) {
  char path[64];
  int count = 0;
  trouble[0] = '\0';
  snprintf(path, sizeof path, "/proc/%d/task", subject);
  DIR* list = opendir(path);
  if (list == NULL) {
    snprintf(trouble, size, "the subject is gone");
    return 0;
  }
  for (struct dirent* entry; (entry = readdir(list)) != NULL;) {
    if (entry->d_name[0] == '.') continue;
    char state = '?';
    int tracer = 0;
    count++;
    if (!look_at_task(entry->d_name, &state, &tracer) || strchr("RSD", state) == NULL || tracer != 0)
      snprintf(trouble, size, "thread %s: state %c, traced by %d", entry->d_name, state, tracer);
  }
  closedir(list);
  if (count != kThreads) snprintf(trouble, size, "%d threads instead of %d", count, kThreads);
  return count;
}

// Living children; a zombie of a snapshot whose controller died is left to the next dump.
static bool has_living_child(void) {
  char path[96], text[4096];
  snprintf(path, sizeof path, "/proc/%d/task/%d/children", subject, subject);
  if (!read_text(path, text, sizeof text)) return false;
  for (char *rest = text, *word; (word = strtok_r(rest, " ", &rest)) != NULL;) {
    char status[64], content[256];
    snprintf(status, sizeof status, "/proc/%s/stat", word);
    const char* end = read_text(status, content, sizeof content) ? strrchr(content, ')') : NULL;
    if (end != NULL && end[2] != 'Z' && end[2] != 'X') return true;
  }
  return false;
}

static void expect_alive(void) {
  uint64_t seen[kThreads];
  char trouble[160] = "";
  for (int i = 0; i < kThreads; i++) seen[i] = cells[i].count;
  for (int waited_ms = 0;; waited_ms++) {
    int still = -1;
    for (int i = 0; i < kThreads; i++)
      if (cells[i].count < seen[i] + 2) still = i;
    look_at_threads(trouble, sizeof trouble);
    bool child = has_living_child();
    if (still < 0 && trouble[0] == '\0' && !child) break;
    if (waited_ms > kPatienceMs) {
      if (still >= 0) fail("heart %d does not beat; %s", still, trouble);
      fail("%s%s", trouble, child ? " a living child was left" : "");
    }
    sleep_ms(1);
  }
  for (int i = 0; i < kThreads; i++)
    if (cells[i].wrong != 0) fail("thread %d: %lu calls went wrong", i, (unsigned long)cells[i].wrong);
}

// --- running the tool ---

static void exec_tool(const char* wanted_verb) {
  char pid[16], log[32];
  snprintf(pid, sizeof pid, "%d", subject);
  snprintf(log, sizeof log, "%s.log", wanted_verb);
  int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  dup2(null, 0);
  dup2(null, 1);
  if (strcmp(wanted_verb, "restore") == 0)
    execl(stasis, stasis, "restore", "-D", images, "-d", "-o", log, (char*)NULL);
  else if (strcmp(wanted_verb, "final dump") == 0)
    execl(stasis, stasis, "dump", "-t", pid, "-D", images, "-o", "dump.log", (char*)NULL);
  else
    execl(stasis, stasis, "dump", "-t", pid, "-D", images, "-R", "-o", log, "--snapshot", snapshot,
          (char*)NULL);
  _exit(127);
}

static void expect_success(const char* wanted_verb) {
  pid_t tool = fork();
  if (tool == 0) exec_tool(wanted_verb);
  int status = -1;
  alarm(kToolSeconds);
  while (waitpid(tool, &status, 0) < 0 && errno == EINTR) kill(tool, SIGKILL);
  alarm(0);
  if (status != 0) fail("a %s that nobody disturbs ends with status %#x", wanted_verb, (unsigned)status);
}

// Lets a stopped task of the tool go on to its next stop; deaths in between are met by the next wait.
static void let_go(pid_t tid, int signal_number) {
  ptrace(PTRACE_SYSCALL, tid, NULL, (void*)(intptr_t)signal_number);
}

static bool is_entry(pid_t tid) {
  struct __ptrace_syscall_info info;
  return ptrace(PTRACE_GET_SYSCALL_INFO, tid, sizeof info, &info) > 0 && info.op == PTRACE_SYSCALL_INFO_ENTRY;
}

static pid_t start_traced_tool(void) {
  pid_t tool = fork();
  if (tool == 0) {
    ptrace(PTRACE_TRACEME, 0, NULL, NULL);
    raise(SIGSTOP);
    exec_tool(verb);
  }
  int status;
  if (tool < 0 || waitpid(tool, &status, 0) != tool || !WIFSTOPPED(status)) fail("the tool does not start");
  const long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEEXEC | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL;
  if (ptrace(PTRACE_SETOPTIONS, tool, NULL, (void*)options) != 0) fail("the tool cannot be traced");
  let_go(tool, 0);
  return tool;
}

// Runs the tool up to its k-th system call after exec and kills it there. True when it ended before by itself.
static bool run_and_kill(long k) {
  pid_t tool = start_traced_tool();
  long calls = 0;
  bool started = false, killed = false;
  alarm(kToolSeconds);
  for (;;) {
    int status;
    pid_t tid = waitpid(-1, &status, __WALL);
    if (tid < 0 && errno == EINTR) {
      kill(tool, SIGKILL);
      fail("the tool does not end within %d s", kToolSeconds);
    }
    if (tid < 0) fail("the tool got lost");
    if (tid == subject && !WIFSTOPPED(status) && strcmp(verb, "dump") == 0) {
      subject = 0;
      kill(tool, SIGKILL);
      fail("the subject ended with status %#x", (unsigned)status);
    }
    if (!WIFSTOPPED(status)) {
      if (tid != tool) continue;
      alarm(0);
      if (killed) return false;
      if (status != 0) fail("the tool ended by itself with status %#x", (unsigned)status);
      return true;
    }
    int stop = WSTOPSIG(status);
    if (killed) continue;
    if (status >> 8 == (SIGTRAP | PTRACE_EVENT_EXEC << 8)) started = true;
    bool is_call = stop == (SIGTRAP | 0x80);
    if (is_call && started && is_entry(tid) && ++calls == k) {
      kill(tool, SIGKILL);
      killed = true;
      continue;
    }
    bool is_event = is_call || status >> 16 != 0 || stop == SIGSTOP || stop == SIGTRAP;
    let_go(tid, is_event ? 0 : stop);
  }
}

// --- the two sweeps ---

static void after_killed_dump(long number) {
  expect_alive();
  if (number % kWholeDumpEvery == 0) {
    expect_success("dump");
    expect_alive();
  }
}

static bool subject_exists(void) {
  while (waitpid(-1, NULL, WNOHANG) > 0) {  // puppets of the killed tool become children of this sub-reaper
  }
  return kill(subject, 0) == 0;
}

static void end_subject(void) {
  kill(subject, SIGKILL);
  for (int waited_ms = 0; subject_exists(); waited_ms++) {
    if (waited_ms > 5000) fail("the subject cannot be ended");
    sleep_ms(1);
  }
}

// There is nothing, or there is everything. What was in the beats file at the dump is put back for the next restore.
static void after_killed_restore(const void* saved_beats) {
  char trouble[160] = "";
  double until = now_s() + 3;
  // Threads on their way to death look alive for a moment: they have to stay so.
  for (int good_ms = 0; good_ms < 50 && subject_exists() && now_s() < until; sleep_ms(1)) {
    look_at_threads(trouble, sizeof trouble);
    good_ms = trouble[0] == '\0' ? good_ms + 1 : 0;
  }
  if (subject_exists()) {
    expect_alive();
    end_subject();
  }
  memcpy(cells, saved_beats, kPageBytes);
}

// The subject checks itself for the last time and ends.
static void final_check(void) {
  char path[kPathBytes + 16], text[700];
  snprintf(path, sizeof path, "%s/check", subject_directory);
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0 || write(fd, "1 last\n", 7) != 7) fail("cannot ask the subject");
  close(fd);
  snprintf(path, sizeof path, "%s/result", subject_directory);
  for (int waited_ms = 0; !read_text(path, text, sizeof text); waited_ms += 5) {
    if (waited_ms > 10000) fail("the subject gives no answer at the end");
    sleep_ms(5);
  }
  if (strncmp(text, "1 PASS", 6) != 0) fail("the subject says at the end: %s", text);
}

// Every killed dump may leave an area in the subject; a fresh one keeps the sweep fast.
static void renew_subject(void) {
  final_check();
  for (int waited_ms = 0; subject_exists(); waited_ms++) {
    if (waited_ms > 5000) fail("the subject does not end");
    sleep_ms(1);
  }
  munmap(cells, kPageBytes);
  for (int i = 0; i < 4; i++) {
    static const char* const names[] = {"ready", "check", "result", "beats"};
    char path[kPathBytes + 16];
    snprintf(path, sizeof path, "%s/%s", subject_directory, names[i]);
    unlink(path);
  }
  start_subject();
  expect_alive();
}

static void sweep(long first, long stride) {
  char saved_beats[kPageBytes];
  bool restores = strcmp(verb, "restore") == 0;
  double began_s = now_s();
  long kills = 0;
  if (restores) {
    expect_success("final dump");
    end_subject();
    memcpy(saved_beats, cells, kPageBytes);
  }
  for (current_k = first;; current_k += stride) {
    bool through = run_and_kill(current_k);
    if (through) {
      expect_alive();
      break;
    }
    kills++;
    if (restores)
      after_killed_restore(saved_beats);
    else
      after_killed_dump(kills);
    if (!restores && kills % kRenewEvery == 0) renew_subject();
  }
  printf("%s: %ld kills, the last before system call %ld, in %.1f s: no harm\n", verb, kills, current_k,
         now_s() - began_s);
}

static void on_alarm(int signal_number) {
  (void)signal_number;
}  // makes waitpid return

int main(int argc, char** argv) {
  long stride = 1, first = 1;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (strcmp(argv[i], "--stasis") == 0)
      stasis = argv[i + 1];
    else if (strcmp(argv[i], "--subject") == 0)
      subject_program = argv[i + 1];
    else if (strcmp(argv[i], "--base") == 0)
      base = argv[i + 1];
    else if (strcmp(argv[i], "--verb") == 0)
      verb = argv[i + 1];
    else if (strcmp(argv[i], "--snapshot") == 0)
      snapshot = argv[i + 1];
    else if (strcmp(argv[i], "--stride") == 0)
      stride = atol(argv[i + 1]);
    else if (strcmp(argv[i], "--first") == 0)
      first = atol(argv[i + 1]);
    else
      stasis = NULL, i = argc;
  }
  bool known_verb = strcmp(verb, "dump") == 0 || strcmp(verb, "restore") == 0;
  if (stasis == NULL || subject_program == NULL || base == NULL || stride < 1 || first < 1 || !known_verb) {
    fprintf(
        stderr,
        "usage: %s --stasis BINARY --subject BINARY --base DIRECTORY [--verb dump|restore] [--snapshot auto|fork] "
        "[--stride N] [--first K]\n",
        argv[0]);
    return 2;
  }
  if (geteuid() != 0) {
    puts("SKIPPED: this machine lacks: root's privileges");
    return 77;
  }
  // Terminals of this test's own: their numbers must be free at a restore.
  if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
      mount("devpts", "/dev/pts", "devpts", 0, "mode=620,ptmxmode=666") != 0) {
    perror("mounts of its own");
    return 2;
  }
  snprintf(directory, sizeof directory, "%s/faults-XXXXXX", base);
  if (mkdtemp(directory) == NULL) {
    perror(base);
    return 2;
  }
  snprintf(images, sizeof images, "%s/images", directory);
  snprintf(subject_directory, sizeof subject_directory, "%s/subject", directory);
  mkdir(images, 0700);
  mkdir(subject_directory, 0700);
  struct sigaction action = {.sa_handler = on_alarm};
  sigaction(SIGALRM, &action, NULL);
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  start_subject();
  expect_alive();
  if (strcmp(verb, "dump") == 0) expect_success("dump");
  sweep(first, stride);
  final_check();
  subject = 0;  // it ends by itself
  clean_up();
  return 0;
}
