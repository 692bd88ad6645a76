#include "base/log.h"

#include <unistd.h>

#include <cerrno>
#include <chrono>

namespace stasis::log {

namespace detail {
int current_level = 2;
}

namespace {

struct State {
  std::chrono::steady_clock::time_point start = std::chrono::steady_clock::now();
  std::string pending;
  Fd file;
  bool has_target = false;
  bool to_stderr = false;

  ~State() {
    if (!has_target) to_stderr = has_target = true;
    write_pending();
  }

  void write_pending() {
    const int fd = to_stderr ? STDERR_FILENO : file.get();
    std::string_view rest = pending;
    while (!rest.empty()) {
      const ssize_t n = ::write(fd, rest.data(), rest.size());
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) break;  // a log that cannot be written must not fail the run
      rest.remove_prefix(static_cast<size_t>(n));
    }
    pending.clear();
  }
};

State& state() {
  static State instance;
  return instance;
}

}  // namespace

void set_level(int level) {
  state();
  detail::current_level = level < 0 ? 0 : level > 4 ? 4 : level;
}

int level() {
  return detail::current_level;
}

void set_target(Fd fd) {
  State& s = state();
  s.file = std::move(fd);
  s.has_target = true;
  s.to_stderr = false;
  s.write_pending();
}

void set_target_stderr() {
  State& s = state();
  s.has_target = s.to_stderr = true;
  s.write_pending();
}

void flush() {
  State& s = state();
  if (s.has_target && !s.pending.empty()) s.write_pending();
}

void write_line(Level level, std::string_view text) {
  State& s = state();
  // From level 3 on lines carry the time since the start.
  if (detail::current_level >= 3) {
    using namespace std::chrono;
    const auto us = duration_cast<microseconds>(steady_clock::now() - s.start).count();
    fmt::format_to(std::back_inserter(s.pending), "({:02}.{:06}) ", us / 1000000, us % 1000000);
  }
  s.pending += text;
  s.pending += '\n';
  if (s.has_target && (level == Level::error || s.pending.size() > (1u << 20))) s.write_pending();
}

void write_marked(Level level, std::string_view file, int line, std::string_view text) {
  write_line(level, fmt::format("{} ({}:{}): {}", level == Level::error ? "Error" : "Warn ", file, line, text));
}

void reset() {
  State& s = state();
  s.pending.clear();
  s.file.reset();
  s.has_target = s.to_stderr = false;
  detail::current_level = 2;
}

}  // namespace stasis::log
