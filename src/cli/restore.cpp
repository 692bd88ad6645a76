#include "restore/restore.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <sstream>

#include "base/error.h"
#include "base/log.h"
#include "cli/mapping.h"
#include "cli/statistics.h"
#include "cli/verbs.h"
#include "restore/pid_namespace.h"

namespace stasis::cli {

namespace {

// Where the command is, as a shell would find it. A command that is not there is told before anything is restored.
std::string find_command(const std::string& name) {
  if (name.find('/') != std::string::npos) {
    if (::access(name.c_str(), X_OK) == 0) return name;
  } else {
    const char* path = std::getenv("PATH");
    std::istringstream directories(path != nullptr ? path : "/bin:/usr/bin");
    for (std::string directory; std::getline(directories, directory, ':');) {
      std::string file = (directory.empty() ? "." : directory) + "/" + name;
      if (::access(file.c_str(), X_OK) == 0) return file;
    }
  }
  throw Error(Reason::BAD_OPTION, "the command cannot be executed")
      .object(name)
      .error_number(errno)
      .remedy("name a program behind --, with its path if it is not in PATH");
}

[[noreturn]] void execute(const std::string& file, const std::vector<std::string>& words) {
  log::flush();
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  ::execv(file.c_str(), argv.data());
  throw Error(Reason::SYSTEM, "the tree is restored and runs, but the command cannot be executed")
      .object(file)
      .error_number(errno)
      .remedy("start the command by itself");
}

}  // namespace

int run_restore(const CommandLine& line, Workplace place) {
  const std::string command = line.exec_cmd ? find_command(line.words.front()) : "";
  PidNamespace pid_namespace;
  if (line.new_pid_namespace) {
    if (const auto status = pid_namespace.split()) return *status;
  }
  RestoreStatistics statistics;
  RestoreOptions options = to_restore_options(line, std::move(place));
  options.statistics = &statistics;
  const int status = restore(options);
  if (line.display_stats) {
    std::fputs(statistics_text(statistics).c_str(), stdout);
    std::fflush(stdout);
  }
  if (line.exec_cmd) execute(command, line.words);
  if (line.new_pid_namespace && line.detached) pid_namespace.become_init();
  if (line.new_pid_namespace) await_last_task();
  return status;
}

}  // namespace stasis::cli
