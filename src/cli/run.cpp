#include "cli/run.h"

#include <fmt/format.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cstdio>
#include <exception>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "cli/help.h"
#include "cli/option_table.h"

namespace stasis::cli {

namespace {

constexpr int kExitFailure = 1;
// Scripts tell removed commands apart by it, and a CPU description that was not written from one that does not fit.
constexpr int kExitApart = 255;

void print(FILE* stream, const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stream);
  std::fflush(stream);
}

// The one error of a failed run: on standard error for whoever started it, and in the log for whoever reads it later.
// Printed once if both are the same.
void report(const Error& error, const LogPlace& log) {
  const bool log_is_file = log.open && !log.name.empty();
  const bool logged = log.open && log::enabled(log::Level::error);
  if (logged) log::write_marked(log::Level::error, error.place().file(), error.place().line, error.report());
  if (logged && !log_is_file) return;
  std::string text = "stasis: " + error.report() + "\n";
  if (log_is_file) text += fmt::format("Log: {}\n", log.name);
  print(stderr, text);
}

void log_start(const CommandLine& line) {
  if (!log::enabled(log::Level::info)) return;
  utsname host{};
  ::uname(&host);
  log_info("Stasis {}, command {}", STASIS_VERSION, verb_name(line.verb));
  log_info("Running on {} {} {}", host.sysname, host.release, host.machine);
}

int run_verb(const CommandLine& line, const Actions& actions, LogPlace& log) {
  if (line.verb == Verb::dump || line.verb == Verb::restore) check_privilege(line);
  Workplace place = open_workplace(line, log);
  log_start(line);
  check_supported(line);
  check_consistent(line);
  install_interrupt_handlers();
  switch (line.verb) {
    case Verb::dump:
      return actions.dump(line, std::move(place));
    case Verb::restore:
      if (line.tree != 0) log_warning("restore takes the pids from the images: -t {} is ignored", line.tree);
      return actions.restore(line, std::move(place));
    case Verb::check:
      return actions.check(line);
    case Verb::cpuinfo:
      return actions.cpuinfo(line, std::move(place));
    default:
      throw Error(Reason::INTERNAL, "the command has no action").object(std::string(verb_name(line.verb)));
  }
}

int run_or_throw(const std::vector<std::string>& arguments, const Environment& environment, const Actions& actions,
                 LogPlace& log) {
  const CommandLine line = parse_command_line(arguments, environment);
  if (line.help) {
    print(stdout, help_text());
    return 0;
  }
  if (line.version) {
    print(stdout, version_text());
    return 0;
  }
  log::set_level(line.verbosity);
  for (int fd : line.close_fds) ::close(fd);
  try {
    check_verb(line);
  } catch (const Error& e) {
    report(e, log);
    return line.verb == Verb::exec || line.verb == Verb::show ? kExitApart : kExitFailure;
  }
  if (line.verb != Verb::cpuinfo || line.words.front() != "dump") return run_verb(line, actions, log);
  try {
    return run_verb(line, actions, log);
  } catch (const Error& e) {
    report(e, log);
    return kExitApart;
  }
}

}  // namespace

int run(const std::vector<std::string>& arguments, const Environment& environment, const Actions& actions) noexcept {
  LogPlace log;
  int status = kExitFailure;
  try {
    status = run_or_throw(arguments, environment, actions, log);
  } catch (const Error& e) {
    report(e, log);
  } catch (const std::exception& e) {
    report(Error(Reason::INTERNAL, e.what()).remedy("please report it, with the log at level 4"), log);
  }
  log::flush();
  return status;
}

}  // namespace stasis::cli
