// The texts of --help and --version, derived from the options table.
#pragma once

#include <string>

namespace stasis::cli {

std::string help_text();
// The first line is the version of the command line and images spoken, which callers parse.
std::string version_text();

}  // namespace stasis::cli
