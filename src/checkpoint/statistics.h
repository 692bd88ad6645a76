// The file stats-dump in the work directory.
#pragma once

#include "base/dump_options.h"
#include "memory/page_dump.h"

namespace stasis {

// Adds what is known of pages. The dump is complete: what fails is only logged.
void write_statistics(const DumpOptions& options, const PageDumpStats& s, DumpStatistics& statistics);

}  // namespace stasis
