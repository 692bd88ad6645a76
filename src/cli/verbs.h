// The verbs: one small file each. They return the exit status and throw Error.
#pragma once

#include "cli/options.h"
#include "cli/workplace.h"

namespace stasis::cli {

int run_dump(const CommandLine& line, Workplace place);
int run_restore(const CommandLine& line, Workplace place);
int run_check(const CommandLine& line);
int run_cpuinfo(const CommandLine& line, Workplace place);

}  // namespace stasis::cli
