#include "objects/files/tty_queue.h"

// The kernel's own terminal structures: those of <termios.h> have other sizes and no TCGETS2.
#include <asm/termbits.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>
#include <span>

#include "base/error.h"
#include "kernel/own_process.h"

namespace stasis {
namespace {

// What a line discipline holds (drivers/tty/n_tty.c, N_TTY_BUF_SIZE, one place is never used). What does not fit waits
// before it, and has not been looked at for special characters yet.
constexpr size_t kDiscipline = 4095;
// That and what waits before it: up to 20,000 bytes (drivers/tty/pty.c, with what tty_buffer.c does not count).
constexpr size_t kMost = 32768;
// The most is held in buffers of that size, and the line discipline takes from the first of them.
constexpr size_t kBuffer = 256;
constexpr size_t simulated_bytes(size_t all) {
  return all <= kDiscipline ? all : kDiscipline / kBuffer * kBuffer;
}
// With that much input in lines, more may wait before the line discipline.
constexpr int kManyLines = 3500;

constexpr char kQuote = 026, kEnd = 04;  // VLNEXT and VEOF while input is put back

// ---- what runs in the process of its own: no memory is allocated, nothing is thrown ----------------------

struct Line {
  uint32_t bytes;
};

// What is moved, and what went wrong.
struct Moved {
  std::array<char, kMost> output, input;
  std::array<Line, kMost> lines;
  size_t output_bytes = 0, input_bytes = 0, line_count = 0;
  size_t lines_bytes = 0;  // of the input; the rest is no line yet
  PtyQueues::Stop stop = PtyQueues::Stop::none;
  const char* failed = nullptr;
  int error = 0;
};

int ready(int fd, short events, int timeout_ms = 0) {
  // When nothing is there poll() moves on what is still on its way (n_tty_poll() in the kernel).
  pollfd p{.fd = fd, .events = events, .revents = 0};
  return ::poll(&p, 1, timeout_ms) < 0 ? 0 : p.revents;
}

size_t waiting(int fd) {
  int bytes = 0;
  ready(fd, POLLIN);
  return ::ioctl(fd, FIONREAD, &bytes) < 0 || bytes < 0 ? 0 : static_cast<size_t>(bytes);
}

class Mover {
 public:
  Mover(int master, int slave, bool packet, Moved& moved)
      : master_(master), slave_(slave), packet_(packet), moved_(moved) {}

  void copy() {
    take_output();
    struct termios2 settings {};
    if (slave_ >= 0) {
      check(::ioctl(slave_, TCGETS2, &settings), "reading the settings");
      if (moved_.failed != nullptr) return put_output();
      apply(quiet(settings));
      take_input((settings.c_lflag & ICANON) != 0, quiet(settings));
      find_stop();
    }
    put(settings);
  }

  // Leaves the terminal with `settings`.
  void put(const struct termios2& settings) {
    if (slave_ < 0) return put_output();
    apply(putting(settings));
    put_input();
    put_output();
    put_stop(settings);
    apply(settings);
    // More than that only waits before a line discipline in a raw mode, which it is in now.
    const std::span<const char> raw = all_input().subspan(moved_.lines_bytes);
    write_all(master_, raw.subspan(simulated_bytes(raw.size())));
  }

 private:
  void check(long result, const char* what) {
    if (result >= 0 || moved_.failed != nullptr) return;
    moved_.failed = what;
    moved_.error = errno;
  }
  void apply(const struct termios2& settings) { check(::ioctl(slave_, TCSETS2, &settings), "changing the settings"); }

  // No character acts, none is echoed. What decides about flow control stays: a change would start the output.
  static struct termios2 quiet(struct termios2 settings) {
    const cc_t start = settings.c_cc[VSTART], stop = settings.c_cc[VSTOP];
    settings.c_iflag &= IXON;
    settings.c_oflag = 0;
    settings.c_lflag &= ICANON | EXTPROC;
    std::fill(std::begin(settings.c_cc), std::end(settings.c_cc), cc_t{0});
    settings.c_cc[VSTART] = start;
    settings.c_cc[VSTOP] = stop;
    settings.c_cc[VMIN] = 1;
    return settings;
  }
  static struct termios2 putting(const struct termios2& settings) {
    struct termios2 out = quiet(settings);
    out.c_lflag |= ICANON | IEXTEN;
    out.c_cc[VLNEXT] = kQuote;
    out.c_cc[VEOF] = kEnd;
    return out;
  }

  void take_output() {
    const size_t prefix = packet_ ? 1 : 0;  // says that data follows (ioctl_tty(2), TIOCPKT)
    std::array<char, kDiscipline + 2> buffer;
    for (size_t bytes; (bytes = std::min(waiting(master_), kMost - moved_.output_bytes)) > 0;) {
      const ssize_t got = ::read(master_, buffer.data(), std::min(bytes + prefix, buffer.size()));
      if (got <= static_cast<ssize_t>(prefix)) return check(got < 0 ? -1 : 0, "reading the output");
      std::copy(buffer.begin() + static_cast<ptrdiff_t>(prefix), buffer.begin() + got,
                moved_.output.begin() + static_cast<ptrdiff_t>(moved_.output_bytes));
      moved_.output_bytes += static_cast<size_t>(got) - prefix;
    }
  }

  void take_input(bool canonical, struct termios2 settings) {
    while (canonical && (ready(slave_, POLLIN) & POLLIN) != 0 && moved_.line_count < kMost) {
      const ssize_t got = read_input(kMost - moved_.input_bytes);
      if (got < 0) break;
      moved_.lines[moved_.line_count++] = {static_cast<uint32_t>(got)};  // nothing: the end of file is a line, too
    }
    moved_.lines_bytes = moved_.input_bytes;
    settings.c_lflag &= ~static_cast<tcflag_t>(ICANON);
    if (canonical) apply(settings);
    for (size_t bytes; (bytes = std::min(waiting(slave_), kMost - moved_.input_bytes)) > 0;)
      if (read_input(bytes) <= 0) break;
  }
  ssize_t read_input(size_t most) {
    const ssize_t got = ::read(slave_, moved_.input.data() + moved_.input_bytes, most);
    if (got > 0) moved_.input_bytes += static_cast<size_t>(got);
    if (got < 0 && errno != EAGAIN) check(got, "reading the input");
    return got;
  }

  // The output is empty: only a stop keeps the slave from writing.
  bool is_stopped() { return (ready(slave_, POLLOUT) & POLLOUT) == 0; }
  void find_stop() {
    if (!is_stopped()) return;
    check(::ioctl(slave_, TCXONC, TCOON), "starting the output");
    moved_.stop = is_stopped() ? PtyQueues::Stop::by_character : PtyQueues::Stop::by_call;
  }
  void put_stop(const struct termios2& settings) {
    if (moved_.stop == PtyQueues::Stop::by_call) check(::ioctl(slave_, TCXONC, TCOOFF), "stopping the output");
    if (moved_.stop != PtyQueues::Stop::by_character || is_stopped()) return;
    struct termios2 stopping = putting(settings);
    stopping.c_iflag |= IXON;
    stopping.c_cc[VSTOP] = 023;
    apply(stopping);
    simulate(slave_, 023);
  }

  void simulate(int fd, char byte) { check(::ioctl(fd, TIOCSTI, &byte), "putting a byte back"); }
  void put_quoted(std::span<const char> bytes) {
    for (const char byte : bytes) {
      simulate(slave_, kQuote);
      simulate(slave_, byte);
    }
  }
  std::span<const char> all_input() const { return {moved_.input.data(), moved_.input_bytes}; }
  void put_input() {
    size_t at = 0;
    for (const Line& line : std::span(moved_.lines.data(), moved_.line_count)) {
      const std::span<const char> text = all_input().subspan(at, line.bytes);
      at += line.bytes;
      const bool ends = !text.empty() && text.back() == '\n';
      put_quoted(ends ? text.first(text.size() - 1) : text);
      simulate(slave_, ends ? '\n' : kEnd);
    }
    const std::span<const char> rest = all_input().subspan(at);
    put_quoted(rest.first(simulated_bytes(rest.size())));
  }

  void put_output() {
    const std::span<const char> all(moved_.output.data(), moved_.output_bytes);
    const size_t simulated = simulated_bytes(all.size());
    for (const char byte : all.first(simulated)) simulate(master_, byte);
    write_all(slave_, all.subspan(simulated));
  }
  void write_all(int fd, std::span<const char> bytes) {
    while (!bytes.empty()) {
      const ssize_t put = ::write(fd, bytes.data(), std::min(bytes.size(), kBuffer));
      if (put < 0 && errno == EAGAIN && ready(fd, POLLOUT, 1000) != 0) continue;
      if (put <= 0) return check(-1, "writing back");
      bytes = bytes.subspan(static_cast<size_t>(put));
    }
  }

  int master_, slave_;
  bool packet_;
  Moved& moved_;
};

// ---- before and after it ---------------------------------------------------------------------------------

Error cannot_keep(std::string_view who, std::string what) {
  return Error(Reason::UNSUPPORTED_FILE, std::move(what)).object(std::string(who));
}

bool is_raw(const struct termios2& t) {
  constexpr tcflag_t kChanging = ISTRIP | INLCR | IGNCR | ICRNL | IUCLC | PARMRK;
  return (t.c_iflag & (kChanging | IXON)) == 0 && (t.c_lflag & (ICANON | ECHO | ISIG | EXTPROC)) == 0;
}

void require_put_back(int fd, std::string_view who) {
  // Without a byte to put it says EFAULT to whoever may do it.
  if (::ioctl(fd, TIOCSTI, nullptr) == 0 || errno == EFAULT) return;
  throw cannot_keep(who, "what waits in the terminal could be read, but not put back")
      .error_number(errno)
      .remedy("run it with CAP_SYS_ADMIN, or set the sysctl dev.tty.legacy_tiocsti to 1");
}

// What could not be put back as it is; nothing has been touched yet.
void refuse_inexact(int slave, const struct termios2& settings, std::string_view who) {
  constexpr const char* kLater = "try again when the program has read what waits";
  const size_t bytes = waiting(slave);
  if ((settings.c_lflag & EXTPROC) != 0 && bytes > 0)
    throw cannot_keep(who, "input waits in a terminal that is in external processing mode (EXTPROC)").remedy(kLater);
  const bool canonical = (settings.c_lflag & ICANON) != 0;
  if (canonical ? bytes >= static_cast<size_t>(kManyLines) : bytes >= kDiscipline && !is_raw(settings))
    throw cannot_keep(who, "the terminal is full of input, and more may wait whose special characters would act now")
        .remedy(kLater);
}

bool may_hold_something(const PtySides& pair) {
  const size_t output = waiting(pair.master);
  if (pair.slave < 0) {
    if (output < kDiscipline) return output > 0;
    throw cannot_keep(pair.who, "the terminal is full of output, and nobody has opened its slave")
        .remedy("try again when the program has read what waits");
  }
  struct termios2 settings {};
  check(::ioctl(pair.slave, TCGETS2, &settings), "cannot read the settings of a terminal");
  refuse_inexact(pair.slave, settings, pair.who);
  // The beginning of a line does not show in canonical mode.
  return output > 0 || (settings.c_lflag & ICANON) != 0 || waiting(pair.slave) > 0 ||
         (ready(pair.slave, POLLOUT) & POLLOUT) == 0;
}

void take(const Moved& moved, PtyQueues& out) {
  out.output.assign(moved.output.data(), moved.output_bytes);
  size_t at = 0;
  for (const Line& line : std::span(moved.lines.data(), moved.line_count)) {
    out.lines.emplace_back(moved.input.data() + at, line.bytes);
    at += line.bytes;
  }
  out.input.assign(moved.input.data() + at, moved.input_bytes - at);
  out.stop = moved.stop;
}

void throw_failed(const Moved& moved, Reason reason, std::string_view who) {
  if (moved.failed == nullptr) return;
  throw Error(reason, fmt::format("{} of a terminal failed", moved.failed))
      .object(std::string(who))
      .error_number(moved.error);
}

}  // namespace

std::vector<PtyQueues> copy_queues(std::span<const PtySides> pairs) {
  std::vector<std::unique_ptr<Moved>> moved(pairs.size());
  bool any = false;
  for (size_t i = 0; i < pairs.size(); ++i) {
    if (!may_hold_something(pairs[i])) continue;
    require_put_back(pairs[i].master, pairs[i].who);
    moved[i] = std::make_unique_for_overwrite<Moved>();
    any = true;
  }
  if (any)
    in_own_process([&] {
      for (size_t i = 0; i < pairs.size(); ++i)
        if (moved[i]) Mover(pairs[i].master, pairs[i].slave, pairs[i].packet, *moved[i]).copy();
    });
  std::vector<PtyQueues> out(pairs.size());
  for (size_t i = 0; i < pairs.size(); ++i) {
    if (!moved[i]) continue;
    throw_failed(*moved[i], Reason::SYSTEM, pairs[i].who);
    take(*moved[i], out[i]);
  }
  return out;
}

void fill_queues(int master, int slave, const PtyQueues& queues, const struct termios2& settings,
                 std::string_view who) {
  if (queues.empty()) {
    // A master stands for its slave in this.
    check(::ioctl(master, TCSETS2, &settings), "cannot give a terminal its settings", Reason::RESTORE_CALL_FAILED);
    return;
  }
  const auto moved = std::make_unique_for_overwrite<Moved>();
  size_t bytes = queues.input.size();
  for (const std::string& line : queues.lines) bytes += line.size();
  if (bytes > kMost || queues.output.size() > kMost || queues.lines.size() > kMost)
    throw Error(Reason::IMAGE_CORRUPT, "more waits in a terminal than it can hold").object(std::string(who));
  const auto add = [&](const std::string& text) {
    std::ranges::copy(text, moved->input.begin() + static_cast<ptrdiff_t>(moved->input_bytes));
    moved->input_bytes += text.size();
  };
  for (const std::string& line : queues.lines) {
    moved->lines[moved->line_count++] = {static_cast<uint32_t>(line.size())};
    add(line);
  }
  moved->lines_bytes = moved->input_bytes;
  add(queues.input);
  std::ranges::copy(queues.output, moved->output.begin());
  moved->output_bytes = queues.output.size();
  moved->stop = queues.stop;
  require_put_back(master, who);
  Mover(master, slave, false, *moved).put(settings);
  if (slave < 0)
    check(::ioctl(master, TCSETS2, &settings), "cannot give a terminal its settings", Reason::RESTORE_CALL_FAILED);
  throw_failed(*moved, Reason::RESTORE_CALL_FAILED, who);
}

}  // namespace stasis
