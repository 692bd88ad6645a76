// One run of the program, from its arguments to its exit status.
#pragma once

#include <string>
#include <vector>

#include "cli/command_line.h"
#include "cli/workplace.h"

namespace stasis::cli {

// What the verbs do. Each returns the exit status or throws Error. They are handed in so that this layer can be tested
// without freezing anything.
struct Actions {
  int (*dump)(const CommandLine& line, Workplace place);
  int (*restore)(const CommandLine& line, Workplace place);
  int (*check)(const CommandLine& line);
  int (*cpuinfo)(const CommandLine& line, Workplace place);
};

// Parses, prepares log and directories, runs the verb; prints at most one error. Does not throw.
int run(const std::vector<std::string>& arguments, const Environment& environment, const Actions& actions) noexcept;

}  // namespace stasis::cli
