#include "cli/command_line.h"

#include <dirent.h>
#include <fnmatch.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <memory>

#include "base/error.h"
#include "cli/config_file.h"
#include "cli/option_table.h"
#include "cli/settings.h"

namespace stasis::cli {

namespace {

std::string variable(const char* name) {
  const char* value = ::getenv(name);
  return value == nullptr ? "" : value;
}

void apply_config_file(const std::string& path, CommandLine& line) {
  const std::optional<std::vector<Setting>> settings = read_config_file(path);
  if (!settings) return;
  for (const Setting& setting : *settings) {
    try {
      apply(setting, line);
    } catch (const Error& e) {
      throw Error(Reason::BAD_CONFIG_FILE, e.what_failed()).object(e.object()).remedy(e.remedy());
    }
  }
}

void apply_config_files(const CommandLine& chosen, const Environment& environment, CommandLine& line) {
  const auto apply_file = [&line](const std::string& path, const char* remedy) {
    try {
      if (!path.empty()) apply_config_file(path, line);
    } catch (Error& e) {
      e.default_remedy(remedy);
      throw;
    }
  };
  if (chosen.default_config && chosen.config.empty()) {
    constexpr const char* skip = "correct it, or skip the default files with --no-default-config";
    apply_file(environment.system_config, skip);
    if (!environment.home.empty()) apply_file(environment.home + "/.criu/default.conf", skip);
  }
  apply_file(environment.config_file, "correct it, or unset CRIU_CONFIG_FILE");
  apply_file(chosen.config, "correct it, or name another file with --config");
}

void take_verb(std::vector<std::string> words, CommandLine& line) {
  if (words.empty()) return;
  for (const VerbRow& row : verb_table()) {
    if (row.name == words.front()) line.verb = row.verb;
  }
  if (line.verb == Verb::none) {
    throw Error(Reason::BAD_OPTION, "there is no such command")
        .object(words.front())
        .remedy("see --help for all commands");
  }
  words.erase(words.begin());
  line.words = std::move(words);
}

// Whether a directory holds what would be loaded as plugins.
bool holds_plugins(const std::string& directory) {
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(::opendir(directory.c_str()), ::closedir);
  if (!dir) return false;
  while (const dirent* entry = ::readdir(dir.get())) {
    if (::fnmatch("*.so", entry->d_name, 0) == 0) return true;
  }
  return false;
}

Error missing_feature(std::string object) {
  return Error(Reason::OPTION_NOT_SUPPORTED, "this version does not have it").object(std::move(object));
}

Error contradiction(std::string what, std::string remedy) {
  return Error(Reason::BAD_OPTION, std::move(what)).remedy(std::move(remedy));
}

// Numbers that test suites of the field use. What does not concern this program is accepted and does nothing.
int fault_number(const std::string& text) {
  if (text.empty()) return 0;
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const bool known = (number >= 1 && number <= 6) || (number >= 127 && number <= 138);
  if (error != std::errc() || end != text.data() + text.size() || !known)
    throw contradiction("there is no such fault", "unset the environment variable CRIU_FAULT").object(text);
  return number;
}

}  // namespace

Environment Environment::of_process() {
  return {.system_config = "/etc/criu/default.conf",
          .home = variable("HOME"),
          .config_file = variable("CRIU_CONFIG_FILE"),
          .libs_dir = variable("CRIU_LIBS_DIR"),
          .deprecated = ::getenv("CRIU_DEPRECATED") != nullptr,
          .fault = variable("CRIU_FAULT")};
}

CommandLine parse_command_line(const std::vector<std::string>& arguments, const Environment& environment) {
  CommandLine line;
  bool help_wanted = false;
  try {
    const Scan scan = scan_arguments(arguments, help_wanted);
    // The arguments choose the configuration files, but are stored after them.
    CommandLine chosen;
    for (const Setting& setting : scan.settings) {
      const std::string_view name = option_table()[setting.row].name;
      if (name == "config" || name == "no-default-config") apply(setting, chosen);
    }
    line.deprecated = environment.deprecated;
    line.libdir = environment.libs_dir;
    line.fault = fault_number(environment.fault);
    apply_config_files(chosen, environment, line);
    for (const Setting& setting : scan.settings) apply(setting, line);
    take_verb(scan.words, line);
  } catch (const Error&) {
    if (!help_wanted) throw;
    line.help = true;
  }
  return line;
}

void check_verb(const CommandLine& line) {
  if (line.verb == Verb::none) {
    throw contradiction("no command was given", "name one: dump, restore or check; --help shows all");
  }
  const std::string name(verb_name(line.verb));
  if (line.verb == Verb::exec || line.verb == Verb::show) {
    throw Error(Reason::OPTION_NOT_SUPPORTED, "the command was removed")
        .object(name)
        .remedy(line.verb == Verb::show ? "read images with crit" : "run calls in a task with a debugger");
  }
  for (const VerbRow& row : verb_table()) {
    if (row.verb == line.verb && row.support == Support::missing) {
      throw missing_feature(name).remedy("use dump, restore or check");
    }
  }
  if (line.verb == Verb::cpuinfo) {
    if (line.words.size() == 1 && (line.words.front() == "dump" || line.words.front() == "check")) return;
    throw contradiction("cpuinfo wants one word: dump or check", "write cpuinfo dump or cpuinfo check");
  }
  if (!line.words.empty() && !(line.verb == Verb::restore && line.exec_cmd)) {
    throw Error(Reason::BAD_OPTION, "there are too many words").object(line.words.front()).remedy("give one command");
  }
}

void check_supported(const CommandLine& line) {
  const auto rows = option_table();
  for (size_t i = 0; i < rows.size(); ++i) {
    const OptionRow& row = rows[i];
    if (row.support == Support::missing && line.given.test(i) && (row.verbs & verb_bit(line.verb)) != 0) {
      throw missing_feature("--" + std::string(row.name)).remedy("leave the option out");
    }
  }
  if ((line.verb == Verb::dump || line.verb == Verb::restore) && !line.libdir.empty() && holds_plugins(line.libdir)) {
    throw missing_feature("plugins in " + line.libdir)
        .remedy("leave out --libdir and CRIU_LIBS_DIR, or name a directory without plugins");
  }
}

void check_consistent(const CommandLine& line) {
  if (line.verb == Verb::dump && line.tree == 0) {
    throw contradiction("no task to dump was named", "name the root of the tree with -t PID");
  }
  if (line.verb != Verb::restore) return;
  if (line.restore_sibling && !line.detached) {
    throw contradiction("a sibling can only be restored detached", "add -d to --restore-sibling");
  }
  if (line.exec_cmd && line.detached) {
    throw contradiction("a command cannot become the parent of a detached tree", "leave out -d or --exec-cmd");
  }
  if (line.exec_cmd && line.words.empty()) {
    throw contradiction("there is no command to execute", "write it behind --: restore --exec-cmd -- command words");
  }
  if (line.new_pid_namespace && line.exec_cmd) {
    throw contradiction("a command cannot be the parent of a tree in a new pid namespace",
                        "leave out --exec-cmd or --new-pid-namespace");
  }
  if (line.new_pid_namespace && line.restore_sibling) {
    throw contradiction("the first process of a new pid namespace has no siblings in it",
                        "leave out --restore-sibling or --new-pid-namespace");
  }
  if (line.new_pid_namespace && line.shell_job) {
    throw contradiction("the session of a shell job does not reach into a new pid namespace",
                        "leave out --shell-job or --new-pid-namespace");
  }
}

}  // namespace stasis::cli
