// From an argument list and the configuration files to a CommandLine.
#pragma once

#include <string>
#include <vector>

#include "cli/options.h"

namespace stasis::cli {

// What the surroundings of the process say about configuration. Empty: not there.
struct Environment {
  std::string system_config;  // usually /etc/criu/default.conf
  std::string home;           // HOME, whose .criu/default.conf is read
  std::string config_file;    // CRIU_CONFIG_FILE
  std::string libs_dir;       // CRIU_LIBS_DIR, the plugin directory if --libdir names none
  bool deprecated = false;    // CRIU_DEPRECATED is set
  std::string fault;          // CRIU_FAULT

  static Environment of_process();
};

// Reads the configuration files in order, then the arguments (without the program's name). A later setting overrides
// an earlier one, lists grow. Throws BAD_OPTION or BAD_CONFIG_FILE; with --help anywhere it returns with
// `help` set instead. The verb is not checked here.
CommandLine parse_command_line(const std::vector<std::string>& arguments, const Environment& environment);

// Throws if there is no verb, an unknown or a removed one, one that does not exist yet, or extra words.
void check_verb(const CommandLine& line);

// Throws OPTION_NOT_SUPPORTED for an option that asks the verb for an action that does not exist yet.
void check_supported(const CommandLine& line);

// Throws BAD_OPTION if options of the verb contradict each other or one is lacking.
void check_consistent(const CommandLine& line);

}  // namespace stasis::cli
