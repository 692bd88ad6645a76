// The log: lines of the shape "(00.012345) text", to a file or to stderr.
//
// There is one log for the process, like stderr, because every layer writes to it; nothing else of a run is
// global. Below the level a call costs one comparison: arguments are not formatted. Lines are kept in memory
// and written in one call by flush() (done between stages, at an error and at exit), so that no write happens
// inside the freeze; a line at Error level flushes at once.
#pragma once

#include <fmt/format.h>

#include <string_view>

#include "base/fd.h"

namespace stasis::log {

enum class Level { message = 0, error = 1, warning = 2, info = 3, debug = 4 };

// Until set_target() is called, lines are kept; they go to the target, or to stderr at exit.
void set_level(int level);
int level();
void set_target(Fd fd);  // a file: owned by the log from here on
void set_target_stderr();
void flush();

inline bool enabled(Level wanted);
void write_line(Level level, std::string_view text);
// "Error (file:line): text", for the one error that ends a run, and "Warn  (file:line): text".
void write_marked(Level level, std::string_view file, int line, std::string_view text);
// Forgets every line and closes the target; for tests and forked helpers.
void reset();

namespace detail {
extern int current_level;
}
inline bool enabled(Level wanted) {
  return static_cast<int>(wanted) <= detail::current_level;
}

}  // namespace stasis::log

#define STASIS_LOG(lvl, ...)                                                                     \
  do {                                                                                           \
    if (::stasis::log::enabled(lvl)) ::stasis::log::write_line(lvl, ::fmt::format(__VA_ARGS__)); \
  } while (false)
#define log_debug(...) STASIS_LOG(::stasis::log::Level::debug, __VA_ARGS__)
#define log_info(...) STASIS_LOG(::stasis::log::Level::info, __VA_ARGS__)
#define log_message(...) STASIS_LOG(::stasis::log::Level::message, __VA_ARGS__)
#define log_warning(...)                                                                                               \
  do {                                                                                                                 \
    if (::stasis::log::enabled(::stasis::log::Level::warning))                                                         \
      ::stasis::log::write_marked(::stasis::log::Level::warning, __FILE_NAME__, __LINE__, ::fmt::format(__VA_ARGS__)); \
  } while (false)
