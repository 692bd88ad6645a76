#include "checkpoint/dump.h"

#include <cstdio>

#include "cli/mapping.h"
#include "cli/statistics.h"
#include "cli/verbs.h"

namespace stasis::cli {

int run_dump(const CommandLine& line, Workplace place) {
  const DumpResult result = dump(to_dump_options(line, std::move(place)));
  if (line.display_stats) std::fputs(statistics_text(result.statistics).c_str(), stdout);
  return 0;
}

}  // namespace stasis::cli
