// Pseudo terminals inside the tree: what waits in them, settings and modes, the controlling one of a session with a
// foreground group, and those of which one side is closed. The end of a master is told once, and when it comes.
#include <asm/termbits.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/sysmacros.h>

#include "subject.h"

enum { kOpen = O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK };

struct pair {
  int master, slave, index;
};

static struct pair make_pair(void) {
  const int unlocked = 0;
  struct pair p = {.master = open("/dev/ptmx", kOpen)};
  REQUIRE(p.master >= 0 && ioctl(p.master, TIOCSPTLCK, &unlocked) == 0 && ioctl(p.master, TIOCGPTN, &p.index) == 0);
  char path[32];
  snprintf(path, sizeof path, "/dev/pts/%d", p.index);
  p.slave = open(path, kOpen);
  REQUIRE(p.slave >= 0);
  return p;
}

static struct termios2 settings_of(int fd) {
  struct termios2 t;
  REQUIRE(ioctl(fd, TCGETS2, &t) == 0);
  return t;
}
static void set_silent(int fd) {
  struct termios2 t = settings_of(fd);
  t.c_lflag &= ~(tcflag_t)ECHO;
  REQUIRE(ioctl(fd, TCSETS2, &t) == 0);
}
static void set_raw(int fd) {
  struct termios2 t = settings_of(fd);
  t.c_iflag = t.c_oflag = 0;
  t.c_lflag &= ~(tcflag_t)(ICANON | ECHO | ISIG | IEXTEN);
  REQUIRE(ioctl(fd, TCSETS2, &t) == 0);
}

static bool poll_for(int fd, short events) {
  struct pollfd p = {fd, events, 0};
  return poll(&p, 1, 1000) == 1 && (p.revents & events) != 0;
}
static void put(int fd, const char* text) {
  REQUIRE(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
}
static void expect(int fd, const char* wanted, const char* what) {
  char text[256] = "";
  ssize_t got = poll_for(fd, POLLIN) ? read(fd, text, sizeof text - 1) : -1;
  text[got > 0 ? got : 0] = '\0';
  CHECK(got == (ssize_t)strlen(wanted) && strcmp(text, wanted) == 0, "%s: \"%s\" instead of \"%s\"", what, text, wanted);
}
static void expect_nothing(int fd, const char* what) {
  char text[64];
  CHECK(read(fd, text, sizeof text) == -1 && errno == EAGAIN, "%s: there is more", what);
}

// ---- what waits ------------------------------------------------------------------------------------------

static struct pair queued, raw, stopped_by_call, stopped_by_character;
enum { kFull = 12000 };
static char much[kFull];

static void fill_queued(void) {
  put(queued.master, "one\ntwo\x16\n\nthr");
  usleep(20000);  // the kernel moves it by a work queue
  put(queued.slave, "out\n");
}
static void check_queued(void) {
  expect(queued.slave, "one\n", "the first line");
  expect(queued.slave, "two\n\n", "the second line");
  expect_nothing(queued.slave, "the beginning of a line");
  put(queued.master, "ee\n");
  expect(queued.slave, "three\n", "the third line");
  expect(queued.master, "out\r\n", "output");
  expect_nothing(queued.master, "output");
  fill_queued();
}

static void write_much(int fd) {
  for (size_t at = 0; at < sizeof much;) {
    CHECK(poll_for(fd, POLLOUT), "no room after %zu bytes", at);
    ssize_t put_bytes = write(fd, much + at, sizeof much - at < 256 ? sizeof much - at : 256);
    if (put_bytes <= 0) return;
    at += (size_t)put_bytes;
  }
}
static void read_much(int fd, const char* what) {
  static char found[kFull];
  size_t at = 0;
  while (at < sizeof found && poll_for(fd, POLLIN)) {
    ssize_t got = read(fd, found + at, sizeof found - at);
    if (got <= 0) break;
    at += (size_t)got;
  }
  CHECK(at == sizeof much && memcmp(found, much, sizeof much) == 0, "%s: %zu bytes, or others", what, at);
  expect_nothing(fd, what);
}
static void check_raw(void) {
  read_much(raw.slave, "much input");
  read_much(raw.master, "much output");
  write_much(raw.master);
  write_much(raw.slave);
}

static void expect_stopped(int slave, const char* how) {
  CHECK(write(slave, "x", 1) == -1 && errno == EAGAIN, "output is not stopped by %s", how);
}
static void check_stopped(void) {
  expect_stopped(stopped_by_call.slave, "a call");
  CHECK(ioctl(stopped_by_call.slave, TCXONC, TCOON) == 0 && write(stopped_by_call.slave, "x", 1) == 1, "not started");
  expect(stopped_by_call.master, "x", "output that was stopped by a call");
  CHECK(ioctl(stopped_by_call.slave, TCXONC, TCOOFF) == 0, "not stopped");
  expect_stopped(stopped_by_character.slave, "a character");
  put(stopped_by_character.master, "\x11");
  usleep(20000);
  CHECK(write(stopped_by_character.slave, "x", 1) == 1, "not started");
  expect(stopped_by_character.master, "x", "output that was stopped by a character");
  put(stopped_by_character.master, "\x13");
  usleep(20000);
}

// ---- settings and modes ----------------------------------------------------------------------------------

static struct pair set_up;
static void set_modes(void) {
  struct termios2 t = settings_of(set_up.slave);
  t.c_cflag = (t.c_cflag & ~(tcflag_t)CBAUD) | BOTHER;
  t.c_ospeed = 12345;
  t.c_ispeed = 12345;
  t.c_cc[VINTR] = 'i';
  t.c_lflag |= ECHOK;
  REQUIRE(ioctl(set_up.master, TCSETS2, &t) == 0);
  const struct winsize size = {.ws_row = 33, .ws_col = 111, .ws_xpixel = 5, .ws_ypixel = 6};
  REQUIRE(ioctl(set_up.slave, TIOCSWINSZ, &size) == 0);
  const int on = 1;
  REQUIRE(ioctl(set_up.master, TIOCPKT, &on) == 0);
  REQUIRE(ioctl(set_up.slave, TIOCEXCL) == 0 && fchown(set_up.slave, 7, 8) == 0 && fchmod(set_up.slave, 0640) == 0);
}
static void check_modes(void) {
  const struct termios2 t = settings_of(set_up.slave);
  CHECK(t.c_ospeed == 12345 && (t.c_cflag & CBAUD) == BOTHER, "speed %u", t.c_ospeed);
  CHECK(t.c_cc[VINTR] == 'i' && (t.c_lflag & ECHOK) != 0, "settings");
  struct winsize size;
  CHECK(ioctl(set_up.master, TIOCGWINSZ, &size) == 0 && size.ws_row == 33 && size.ws_col == 111 && size.ws_xpixel == 5 &&
            size.ws_ypixel == 6, "size %d x %d", size.ws_row, size.ws_col);
  int packet = 0, exclusive = 0, exclusive_master = 1, locked = 1;
  CHECK(ioctl(set_up.master, TIOCGPKT, &packet) == 0 && packet == 1, "packet mode");
  CHECK(ioctl(set_up.slave, TIOCGEXCL, &exclusive) == 0 && exclusive == 1, "exclusive mode");
  CHECK(ioctl(set_up.master, TIOCGEXCL, &exclusive_master) == 0 && exclusive_master == 0, "exclusive mode of the master");
  CHECK(ioctl(set_up.master, TIOCGPTLCK, &locked) == 0 && locked == 0, "locked");
  struct stat st;
  CHECK(fstat(set_up.slave, &st) == 0 && st.st_uid == 7 && st.st_gid == 8 && (st.st_mode & 07777) == 0640,
        "owner %u:%u, mode %o", st.st_uid, st.st_gid, st.st_mode);
  int index = -1;
  CHECK(ioctl(set_up.master, TIOCGPTN, &index) == 0 && index == set_up.index, "index %d", index);
  put(set_up.slave, "packet");
  char text[16] = "";
  CHECK(poll_for(set_up.master, POLLIN) && read(set_up.master, text, sizeof text) == 7 && text[0] == TIOCPKT_DATA &&
            memcmp(text + 1, "packet", 6) == 0, "a packet");
}

// ---- one side only ---------------------------------------------------------------------------------------

static int never_opened, hung_up, hung_up_reader;
static struct pair closed;
static void check_sides(void) {
  int locked = 0, exclusive = 0;
  struct pollfd p = {never_opened, POLLIN, 0};
  CHECK(poll(&p, 1, 0) == 0, "a terminal that nobody has opened says %#x", p.revents);
  CHECK(ioctl(never_opened, TIOCGPTLCK, &locked) == 0 && locked == 1, "not locked");
  CHECK(ioctl(never_opened, TIOCGEXCL, &exclusive) == 0 && exclusive == 1, "exclusive mode of a master");
  CHECK(ioctl(never_opened, TIOCGPTPEER, O_RDWR | O_NOCTTY) == -1 && errno == EIO, "opened although it is locked");

  // What was written before the slave was closed; then the end.
  p = (struct pollfd){closed.master, POLLIN, 0};
  CHECK(poll(&p, 1, 0) == 1 && p.revents == (POLLIN | POLLHUP), "a closed slave says %#x", p.revents);
  expect(closed.master, "last words", "output of a slave that is closed");
  char text[16];
  CHECK(read(closed.master, text, sizeof text) == -1 && errno == EIO, "no end after the output");
  int again = ioctl(closed.master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
  CHECK(again >= 0, "a closed slave cannot be opened");
  put(again, "last words");
  close(again);

  uint32_t device;
  CHECK(read(hung_up, text, sizeof text) == 0, "a terminal that was hung up has input");
  CHECK(write(hung_up, text, 1) == -1 && errno == EIO, "a terminal that was hung up takes output");
  CHECK(ioctl(hung_up, TIOCGDEV, &device) == -1 && errno == EIO, "a terminal that was hung up answers");
  CHECK((fcntl(hung_up_reader, F_GETFL) & O_ACCMODE) == O_RDONLY, "access mode");
}

// ---- a session -------------------------------------------------------------------------------------------

static struct pair of_session;
static volatile sig_atomic_t hangups, other_signals;
static void on_hangup(int signal) {
  (void)signal;
  hangups++;
}
static void on_other(int signal) {
  (void)signal;
  other_signals++;
}
static void count_signals(void) {
  const struct sigaction count = {.sa_handler = on_hangup, .sa_flags = SA_RESTART};
  const struct sigaction other = {.sa_handler = on_other, .sa_flags = SA_RESTART};
  REQUIRE(sigaction(SIGHUP, &count, NULL) == 0 && sigaction(SIGWINCH, &other, NULL) == 0);
  REQUIRE(sigaction(SIGTTOU, &other, NULL) == 0 && sigaction(SIGTTIN, &other, NULL) == 0);
}

// A device number, as of /proc/self/stat; 0: no terminal.
static unsigned terminal_of_self(int* foreground) {
  char text[512];
  unsigned terminal = 0;
  REQUIRE(subject_read_file("/proc/self/stat", text, sizeof text) > 0);
  REQUIRE(sscanf(strrchr(text, ')') + 2, "%*c %*d %*d %*d %u %d", &terminal, foreground) == 2);
  return terminal;
}

static void run_part(const char* tag, void (*check)(void), bool is_told) {
  subject_part(tag);
  while (subject_next()) {
    CHECK(hangups == 0, "%s: hung up although the master is open", tag);
    CHECK(other_signals == 0, "%s: %d signals that nobody sent", tag, other_signals);
    check();
    subject_part(tag);
  }
  // In the end the master is closed, which the leader is told, and then the leader ends, which its group is told.
  if (is_told) {
    (void)!WAIT_UNTIL(hangups > 0);
    sleep_ms(50);
  }
  exit(hangups == (is_told ? 1 : 0) && subject_status() == 0 ? 0 : 1);
}

static int through_tty;
static pid_t leader, group;
static unsigned device_of_session(void) {
  return (unsigned)makedev(136, (unsigned)of_session.index);
}
static void check_leader(void) {
  int session = 0, front = 0, foreground = 0;
  CHECK(terminal_of_self(&foreground) == device_of_session() && foreground == group, "leader: foreground %d", foreground);
  CHECK(ioctl(of_session.slave, TIOCGSID, &session) == 0 && session == leader, "session %d", session);
  CHECK(ioctl(of_session.slave, TIOCGPGRP, &front) == 0 && front == group, "foreground group %d", front);
}
static void check_front(void) {
  int foreground = 0;
  CHECK(terminal_of_self(&foreground) == device_of_session(), "the foreground group has no terminal");
  struct stat st;
  CHECK(fstat(through_tty, &st) == 0 && st.st_rdev == makedev(5, 0), "/dev/tty is another device");
  put(through_tty, "front\n");
}
static void check_without(void) {
  int foreground = 0;
  CHECK(terminal_of_self(&foreground) == 0, "it has a terminal again");
  CHECK(open("/dev/tty", O_RDWR) == -1 && errno == ENXIO, "/dev/tty can be opened");
}
static void check_aside(void) {
  int foreground = 0;
  CHECK(terminal_of_self(&foreground) == 0, "it has a terminal");
  CHECK(read(of_session.slave, &foreground, 1) == -1 && errno == EAGAIN, "a slave in another session");
}

static pid_t start(const char* tag, void (*prepare)(void), void (*check)(void), bool is_told) {
  pid_t child = fork();
  REQUIRE(child >= 0);
  if (child > 0) return child;
  prepare();
  run_part(tag, check, is_told);
  return 0;
}
static void prepare_front(void) {
  setpgid(0, 0);
  through_tty = open("/dev/tty", O_RDWR | O_CLOEXEC);
  REQUIRE(through_tty >= 0);
  close(of_session.slave);
}
static void prepare_without(void) {
  REQUIRE(ioctl(of_session.slave, TIOCNOTTY) == 0);
}
static void lead(void) {
  leader = setsid();
  close(of_session.master);
  sigset_t ttou;
  sigemptyset(&ttou);
  sigaddset(&ttou, SIGTTOU);
  REQUIRE(leader > 0 && ioctl(of_session.slave, TIOCSCTTY, 0) == 0);
  count_signals();
  group = start("front", prepare_front, check_front, true);
  start("without", prepare_without, check_without, false);
  setpgid(group, group);
  sigprocmask(SIG_BLOCK, &ttou, NULL);
  REQUIRE(ioctl(of_session.slave, TIOCSPGRP, &group) == 0);
  sigprocmask(SIG_UNBLOCK, &ttou, NULL);
}
static void start_session(void) {
  of_session = make_pair();
  leader = fork();
  REQUIRE(leader >= 0);
  if (leader == 0) {
    lead();
    subject_part("leader");
    while (subject_next()) {
      CHECK(hangups == 0 && other_signals == 0, "leader: %d hang-ups, %d other signals", hangups, other_signals);
      check_leader();
      subject_collect("front");
      subject_collect("without");
      subject_part("leader");
    }
    (void)!WAIT_UNTIL(hangups > 0);
    sleep_ms(50);
    exit(hangups == 1 && subject_status() == 0 ? 0 : 1);
  }
}
// The members of the session, when their leader has ended.
static void join_members(void) {
  for (int left = 2; left > 0; left--) {
    int status = 0;
    pid_t member = 0;
    for (int i = 0; i < kPatienceMs / kPollMs && (member = waitpid(-1, &status, WNOHANG)) == 0; i++) sleep_ms(kPollMs);
    CHECK(member > 0 && status == 0, "member %d of the session ended with status %#x", member, (unsigned)status);
  }
}
static void detach(void) {
  REQUIRE(setsid() > 0);
  close(of_session.master);
}

int main(int argc, char** argv) {
  subject_start(argc, argv);
  REQUIRE(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
  for (size_t i = 0; i < sizeof much; i++) much[i] = (char)(i * 7 + i / 256);
  // Its number is given again, to the next one.
  struct pair ended = make_pair();
  hung_up = ended.slave;
  hung_up_reader = ioctl(ended.master, TIOCGPTPEER, O_RDONLY | O_NOCTTY | O_CLOEXEC);
  close(ended.master);
  start_session();
  pid_t aside = start("aside", detach, check_aside, false);
  close(of_session.slave);

  queued = make_pair();
  set_silent(queued.slave);
  raw = make_pair();
  set_raw(raw.slave);
  write_much(raw.master);
  write_much(raw.slave);
  stopped_by_call = make_pair();
  REQUIRE(ioctl(stopped_by_call.slave, TCXONC, TCOOFF) == 0);
  stopped_by_character = make_pair();
  set_silent(stopped_by_character.slave);
  put(stopped_by_character.master, "\x13");
  set_up = make_pair();
  set_modes();
  never_opened = open("/dev/ptmx", kOpen);
  REQUIRE(never_opened >= 0 && ioctl(never_opened, TIOCEXCL) == 0);
  closed = make_pair();
  set_raw(closed.slave);
  put(closed.slave, "last words");
  close(closed.slave);
  fill_queued();
  subject_generation = 0;
  subject_collect("leader");
  subject_collect("front");
  subject_collect("without");
  subject_collect("aside");
  for (subject_ready(); subject_next(); subject_verdict()) {
    check_queued();
    check_raw();
    check_stopped();
    check_modes();
    check_sides();
    subject_collect("leader");
    subject_collect("aside");
    expect(of_session.master, "front\r\n", "what the foreground group wrote");
    if (subject_last) {
      close(of_session.master);
      subject_join(leader);
      subject_join(aside);
      join_members();
    }
  }
  return subject_status();
}
