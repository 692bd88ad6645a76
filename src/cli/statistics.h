// What --display-stats prints: the fields of the statistics images, one a line, under their names there.
#pragma once

#include <string>

#include "base/dump_options.h"
#include "base/restore_options.h"

namespace stasis::cli {

std::string statistics_text(const DumpStatistics& statistics);
std::string statistics_text(const RestoreStatistics& statistics);

}  // namespace stasis::cli
