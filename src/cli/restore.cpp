#include "restore/restore.h"

#include <cstdio>

#include "cli/mapping.h"
#include "cli/statistics.h"
#include "cli/verbs.h"

namespace stasis::cli {

int run_restore(const CommandLine& line, Workplace place) {
  RestoreStatistics statistics;
  RestoreOptions options = to_restore_options(line, std::move(place));
  options.statistics = &statistics;
  const int status = restore(options);
  if (line.display_stats) std::fputs(statistics_text(statistics).c_str(), stdout);
  return status;
}

}  // namespace stasis::cli
