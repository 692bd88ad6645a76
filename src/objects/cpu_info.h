// The description of a CPU (cpuinfo.img), and whether what ran on one can run on another. One source file per CPU.
#pragma once

#include "base/choices.h"
#include "proto/cpuinfo.pb.h"

namespace stasis {

pb::cpuinfo_entry describe_this_cpu();

// Compares what `checks` asks for: `fpu` the components of the extended state, `ins` the instructions that programs can
// use, `cpu` every feature. What `own` has beyond `saved` never matters. Throws CPU_LACKS_FEATURE with the names,
// IMAGE_ARCH for the description of another architecture, IMAGE_CORRUPT.
void require_features(const pb::cpuinfo_entry& saved, const pb::cpuinfo_entry& own, const CpuChecks& checks);

}  // namespace stasis
