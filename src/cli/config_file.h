// Configuration files: one option a line, named without its dashes.
//
//   # comment
//   tcp-established
//   work-dir "/a directory"   # an argument in quotes; \" is a quote inside
//   verbosity=4               # an optional argument has to be glued
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/settings.h"

namespace stasis::cli {

// Parses the text of a file. `shown_name` is for messages. Throws BAD_CONFIG_FILE with the line's number.
std::vector<Setting> parse_config_text(std::string_view text, const std::string& shown_name);

// Reads and parses a file; nothing if there is none. Throws BAD_CONFIG_FILE if it cannot be read or parsed.
std::optional<std::vector<Setting>> read_config_file(const std::string& path);

}  // namespace stasis::cli
