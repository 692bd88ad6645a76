// One occurrence of an option, found on the command line or in a configuration file, not yet stored anywhere.
// Finding and storing are two steps because configuration files, which the command line names, are stored first.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/option_table.h"

namespace stasis::cli {

struct Setting {
  size_t row = 0;  // index into option_table()
  bool on = true;  // false: the --no- form
  std::optional<std::string> argument;
  std::string shown;  // as it was written, for messages: "--ghost-limit=5X"
};

struct Scan {
  std::vector<Setting> settings;
  std::vector<std::string> words;  // what is not an option, in order
};

// Runs getopt_long over `arguments` (without the program's name). Throws BAD_OPTION for the first option that cannot
// be understood, after looking at all of them: `help_wanted` tells whether --help was among them.
// Not thread safe: getopt_long keeps its place in global variables.
Scan scan_arguments(const std::vector<std::string>& arguments, bool& help_wanted);
// Same for a line of a configuration file: looks at the first option and no further.
Setting scan_first(const std::vector<std::string>& arguments);

// Stores a setting. Throws BAD_OPTION for a bad value.
void apply(const Setting& setting, CommandLine& line);

}  // namespace stasis::cli
