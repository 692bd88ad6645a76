// What the running kernel (and the caller's privileges) can do: one probe per feature.
//
// Nothing is probed before probe() is called, and each call probes anew: callers that need an answer twice keep it.
// A probe leaves nothing behind; what cannot be undone runs in a forked helper that dies with its parent.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace stasis {

struct FeatureResult {
  bool supported = false;
  // When missing: why, in one clause. A probe that lacks a privilege says "cannot tell without CAP_...".
  std::string why;
};

// What a missing feature means for the verdict of `check`.
enum class FeatureCategory {
  needed = 1,        // the main job fails without it
  common = 2,        // common states of tasks or options need it
  experimental = 3,  // rare states
};

struct Feature {
  std::string_view name;  // as `check --feature NAME` spells it
  FeatureCategory category;
  std::string_view purpose;  // one sentence: what it is needed for
  FeatureResult (*run)();
};

// All known features, by category.
std::span<const Feature> features() noexcept;
// Null when the name is not known.
const Feature* find_feature(std::string_view name) noexcept;
// Never throws because of the feature: a failing probe is a missing feature.
FeatureResult probe(const Feature& feature);

}  // namespace stasis
