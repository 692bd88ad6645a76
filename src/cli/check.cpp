#include "cli/check.h"

#include <fmt/format.h>

#include <cstdio>

#include "base/error.h"
#include "base/log.h"
#include "cli/verbs.h"

namespace stasis::cli {

namespace {

Error missing(const Feature& feature, const std::string& why) {
  return Error(Reason::FEATURE_MISSING, why.empty() ? "the kernel does not offer it" : why)
      .object(std::string(feature.name))
      .remedy(fmt::format("use a kernel that has it; it is needed for this: {}", feature.purpose));
}

int check_one(const std::string& name, std::span<const Feature> features) {
  for (const Feature& feature : features) {
    if (feature.name != name) continue;
    const FeatureResult result = probe(feature);
    if (!result.supported) throw missing(feature, result.why);
    std::fputs(fmt::format("{} is supported\n", name).c_str(), stdout);
    return 0;
  }
  throw Error(Reason::BAD_OPTION, "there is no such feature")
      .object("--feature " + name)
      .remedy("run check --all for the names");
}

bool is_wanted(const Feature& feature, const CheckOptions& options) {
  switch (feature.category) {
    case FeatureCategory::needed:
      return true;
    case FeatureCategory::common:
      return options.extra;
    case FeatureCategory::experimental:
      return options.experimental;
  }
  return false;
}

}  // namespace

int check_features(const CheckOptions& options, std::span<const Feature> features) {
  if (!options.feature.empty()) return check_one(options.feature, features);
  std::string missing_names;
  for (const Feature& feature : features) {
    if (!is_wanted(feature, options)) continue;
    const FeatureResult result = probe(feature);
    // The list goes to the log: callers compare standard output with the verdict.
    if (options.list) {
      log_message("{:<26}{:<9}{}{}", feature.name, result.supported ? "there" : "missing", feature.purpose,
                  result.supported || result.why.empty() ? "" : " (" + result.why + ")");
    }
    if (result.supported) continue;
    if (feature.category == FeatureCategory::needed) {
      log_warning("Does not look good.");
      throw missing(feature, result.why);
    }
    if (!missing_names.empty()) missing_names += ", ";
    missing_names += feature.name;
  }
  if (missing_names.empty()) {
    std::fputs("Looks good.\n", stdout);
    return 0;
  }
  std::fputs(fmt::format("Looks good but this kernel lacks: {}.\n"
                         "Most trees can be saved and restored; those that need a missing feature are refused.\n"
                         "What each is needed for is listed by check --all.\n",
                         missing_names)
                 .c_str(),
             stdout);
  return 1;
}

int run_check(const CommandLine& line) {
  return check_features(to_check_options(line), features());
}

}  // namespace stasis::cli
