#include "cli/help.h"

#include <fmt/format.h>

#include "cli/option_table.h"

namespace stasis::cli {

namespace {

constexpr std::string_view kSpokenVersion = "4.2";
constexpr size_t kHelpColumn = 34;

std::string option_head(const OptionRow& row) {
  std::string head = row.letter != 0 ? fmt::format("  -{}, ", row.letter) : "      ";
  head += row.has_no ? "--[no-]" : "--";
  head += row.name;
  if (row.argument == Argument::required) head += fmt::format(" {}", row.argument_name);
  if (row.argument == Argument::optional) head += fmt::format("[={}]", row.argument_name);
  return head;
}

void append_entry(std::string& out, std::string_view head, std::string_view help, bool there) {
  out += head;
  if (head.size() + 2 > kHelpColumn) {
    out += '\n';
    out.append(kHelpColumn, ' ');
  } else {
    out.append(kHelpColumn - head.size(), ' ');
  }
  out += help;
  if (!there) out += " (not in this version)";
  out += '\n';
}

}  // namespace

std::string help_text() {
  std::string out =
      "Usage: stasis [options] COMMAND [options]\n"
      "\n"
      "Stops a tree of tasks, saves it to files and brings it back.\n"
      "\n"
      "Commands:\n";
  for (const VerbRow& row : verb_table()) {
    if (!row.help.empty()) append_entry(out, fmt::format("  {}", row.name), row.help, row.support == Support::ready);
  }
  // The rows of a section stand together in the table.
  const OptionRow* previous = nullptr;
  for (const OptionRow& row : option_table()) {
    if (previous == nullptr || previous->section != row.section)
      out += fmt::format("\n{}:\n", section_title(row.section));
    append_entry(out, option_head(row), row.help, row.support == Support::ready);
    previous = &row;
  }
  out +=
      "\n"
      "Long options may be abbreviated; --[no-]NAME can be taken back by --no-NAME.\n"
      "Configuration files hold long options without dashes, one a line.\n";
  return out;
}

std::string version_text() {
  return fmt::format("Version: {}\nStasis {}\n", kSpokenVersion, STASIS_VERSION);
}

}  // namespace stasis::cli
