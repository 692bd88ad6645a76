// The verb check: which features the running kernel has.
#pragma once

#include <span>

#include "cli/mapping.h"
#include "kernel/features.h"

namespace stasis::cli {

// Probes and prints the verdict on standard output, where callers look for "Looks good." and "NAME is supported".
// Returns the exit status. Throws FEATURE_MISSING if a feature that everything needs, or the one asked for, is missing,
// BAD_OPTION for a name that is not in `features`.
int check_features(const CheckOptions& options, std::span<const Feature> features);

}  // namespace stasis::cli
