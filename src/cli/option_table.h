// The one table of options. getopt_long's tables, the help text and the keys of configuration files are derived
// from it; adding an option is adding a row (and its field in options.h).
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "cli/options.h"

namespace stasis::cli {

enum class Argument { none, required, optional };

// Whether the feature behind an option is there.
enum class Support {
  ready,    // works, or only matters once the tree or the images hold objects that know what to do with it
  missing,  // asks for an action that does not exist yet: refused by name when a verb it concerns is run
};

enum class Section { generic, logging, dump_restore, cgroups, memory, server, check };

// A set of verbs.
using Verbs = uint32_t;
constexpr Verbs verb_bit(Verb verb) {
  return 1u << static_cast<unsigned>(verb);
}

struct OptionRow {
  std::string_view name;
  char letter;  // 0: none
  Argument argument;
  bool has_no;  // --no-NAME takes it back
  Support support;
  Verbs verbs;  // verbs that look at it; any other verb accepts and ignores it
  Section section;
  std::string_view argument_name;
  std::string_view help;
  // Stores one occurrence. `argument` is nullptr if there is none; `on` is false for the --no- form.
  void (*set)(CommandLine& line, const char* argument, bool on);
};

// All rows, in the order of the help text.
std::span<const OptionRow> option_table();
std::string_view section_title(Section section);

struct VerbRow {
  std::string_view name;
  Verb verb;
  Support support;
  std::string_view help;  // empty: not listed
};
std::span<const VerbRow> verb_table();
std::string_view verb_name(Verb verb);

}  // namespace stasis::cli
