// From what was said to what is to be done: the only place that knows both spellings and option structs.
#pragma once

#include "base/dump_options.h"
#include "base/restore_options.h"
#include "cli/options.h"
#include "cli/workplace.h"

namespace stasis::cli {

DumpOptions to_dump_options(const CommandLine& line, Workplace place);
RestoreOptions to_restore_options(const CommandLine& line, Workplace place);

// What `check` is asked to do.
struct CheckOptions {
  bool extra = false;         // also what only some trees need
  bool experimental = false;  // also what experimental operations need
  bool list = false;          // say for each feature what it is needed for
  std::string feature;        // only this one; empty: all
};
CheckOptions to_check_options(const CommandLine& line);

}  // namespace stasis::cli
