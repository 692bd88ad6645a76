// The program. Called as "criu" it is the same; called as "crit" it would be the tool for image files.
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "cli/run.h"
#include "cli/verbs.h"

int main(int argc, char** argv) {
  const std::string_view path = argc > 0 ? argv[0] : "stasis";
  if (path.substr(path.rfind('/') + 1) == "crit") {
    std::fputs("stasis: crit: this version does not have it [OPTION_NOT_SUPPORTED]\n", stderr);
    return 1;
  }
  const std::vector<std::string> arguments(argv + (argc > 0 ? 1 : 0), argv + argc);
  return stasis::cli::run(arguments, stasis::cli::Environment::of_process(),
                          {.dump = stasis::cli::run_dump,
                           .restore = stasis::cli::run_restore,
                           .check = stasis::cli::run_check,
                           .cpuinfo = stasis::cli::run_cpuinfo});
}
