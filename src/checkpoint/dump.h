// One dump: freeze a tree, write it to an image directory, and run it on, stop it or kill it.
#pragma once

#include "base/dump_options.h"

namespace stasis {

struct DumpResult {
  DumpStatistics statistics;
};

// Throws Error; then every task is as it was and the image directory has no inventory. Runs in the calling thread,
// which becomes the tracer meanwhile.
DumpResult dump(const DumpOptions& options);

}  // namespace stasis
