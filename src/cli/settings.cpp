#include "cli/settings.h"

#include <fmt/format.h>
#include <getopt.h>

#include <algorithm>

#include "base/error.h"

namespace stasis::cli {

namespace {

// Values that getopt_long returns for long options: above every letter, two for each row.
constexpr int kFirstValue = 256;
constexpr int value_of(size_t row, bool on) {
  return kFirstValue + static_cast<int>(row) * 2 + (on ? 0 : 1);
}

struct Tables {
  std::string letters;
  std::vector<std::string> negated_names;
  std::vector<option> longs;
};

Tables build_tables() {
  const auto rows = option_table();
  Tables out;
  // '-': words are returned in place, so nothing is permuted and POSIXLY_CORRECT changes nothing; ':': a missing
  // argument is told apart (getopt(3)).
  out.letters = "-:";
  out.negated_names.reserve(rows.size());  // option::name points into it
  out.longs.reserve(rows.size() * 2 + 1);
  for (size_t i = 0; i < rows.size(); ++i) {
    const OptionRow& row = rows[i];
    const int has_argument = row.argument == Argument::none       ? no_argument
                             : row.argument == Argument::required ? required_argument
                                                                  : optional_argument;
    out.longs.push_back({row.name.data(), has_argument, nullptr, value_of(i, true)});
    if (row.has_no) {
      out.negated_names.push_back("no-" + std::string(row.name));
      out.longs.push_back({out.negated_names.back().c_str(), no_argument, nullptr, value_of(i, false)});
    }
    if (row.letter != 0 && out.letters.find(row.letter) == std::string::npos) {
      out.letters += row.letter;
      out.letters.append(static_cast<size_t>(has_argument), ':');
    }
  }
  out.longs.push_back({nullptr, 0, nullptr, 0});
  return out;
}

size_t row_of_letter(int letter) {
  const auto rows = option_table();
  size_t i = 0;
  while (i < rows.size() && rows[i].letter != letter) ++i;
  return i;
}

// Names that start as the user wrote: none for an unknown option, several for an ambiguous one.
std::vector<std::string> candidates(std::string_view prefix, const Tables& tables) {
  std::vector<std::string> out;
  for (const option& o : tables.longs) {
    if (o.name != nullptr && std::string_view(o.name).starts_with(prefix)) out.emplace_back(o.name);
  }
  return out;
}

// getopt_long has refused `word` (optopt as it left it).
Error explain(int result, const std::string& word, const Tables& tables) {
  const bool is_long = word.starts_with("--");
  const std::string shown = is_long ? word.substr(0, word.find('=')) : fmt::format("-{}", static_cast<char>(optopt));
  if (result == ':') {
    const size_t row = optopt >= kFirstValue ? static_cast<size_t>(optopt - kFirstValue) / 2 : row_of_letter(optopt);
    return Error(Reason::BAD_OPTION, "the option needs an argument")
        .object(shown)
        .remedy(fmt::format("write {} {}", shown, option_table()[row].argument_name));
  }
  // A known long option was given an argument: optopt holds its value.
  if (is_long && optopt >= kFirstValue) {
    return Error(Reason::BAD_OPTION, "the option takes no argument").object(shown).remedy("leave the = away");
  }
  if (is_long) {
    const std::vector<std::string> names = candidates(std::string_view(shown).substr(2), tables);
    if (names.size() > 1) {
      return Error(Reason::BAD_OPTION, "the abbreviation is ambiguous")
          .object(shown)
          .remedy(fmt::format("write one of --{}", fmt::join(names, ", --")));
    }
  }
  return Error(Reason::BAD_OPTION, "there is no such option").object(shown).remedy("see --help for all options");
}

}  // namespace

namespace {

// Steps through an argument list, one option or word at a time.
class Scanner {
 public:
  explicit Scanner(const std::vector<std::string>& arguments) : tables_(build_tables()), copies_(arguments) {
    argv_.reserve(copies_.size() + 2);
    argv_.push_back(program_.data());
    for (std::string& copy : copies_) argv_.push_back(copy.data());
    argv_.push_back(nullptr);
    optind = 0;  // makes glibc forget an earlier run (getopt(3))
    opterr = 0;
  }
  Scanner(const Scanner&) = delete;
  Scanner& operator=(const Scanner&) = delete;

  // Appends what comes next to `scan`; false at the end. Throws BAD_OPTION and can go on after that.
  bool step(Scan& scan) {
    // Letters glued together come from one word: optind stays until getopt_long has left it.
    const int before = optind == 0 ? 1 : optind;
    const int argc = static_cast<int>(argv_.size()) - 1;
    const int result = getopt_long(argc, argv_.data(), tables_.letters.c_str(), tables_.longs.data(), nullptr);
    if (result == -1) {
      for (int i = optind; i < argc; ++i) scan.words.emplace_back(argv_[static_cast<size_t>(i)]);
      return false;
    }
    if (result == 1) {
      scan.words.emplace_back(optarg);
      return true;
    }
    const std::string word = argv_[static_cast<size_t>(before)];
    if (result == '?' || result == ':') throw explain(result, word, tables_);
    Setting setting;
    setting.row = result >= kFirstValue ? static_cast<size_t>(result - kFirstValue) / 2 : row_of_letter(result);
    setting.on = result < kFirstValue || (result - kFirstValue) % 2 == 0;
    if (optarg != nullptr) setting.argument = optarg;
    setting.shown = word;
    if (setting.argument && optind - before == 2) setting.shown += " " + *setting.argument;
    scan.settings.push_back(std::move(setting));
    return true;
  }

 private:
  Tables tables_;
  std::string program_ = "stasis";
  std::vector<std::string> copies_;  // getopt_long wants writable strings
  std::vector<char*> argv_;
};

}  // namespace

Scan scan_arguments(const std::vector<std::string>& arguments, bool& help_wanted) {
  Scanner scanner(arguments);
  Scan scan;
  std::optional<Error> first_error;
  bool more = true;
  while (more) {
    try {
      more = scanner.step(scan);
    } catch (Error& e) {
      if (!first_error) first_error = std::move(e);
    }
  }
  help_wanted =
      std::ranges::any_of(scan.settings, [](const Setting& s) { return option_table()[s.row].name == "help"; });
  if (first_error) throw std::move(*first_error);
  return scan;
}

Setting scan_first(const std::vector<std::string>& arguments) {
  Scanner scanner(arguments);
  Scan scan;
  scanner.step(scan);
  if (scan.settings.empty()) throw Error(Reason::BAD_OPTION, "there is no option");
  return std::move(scan.settings.front());
}

void apply(const Setting& setting, CommandLine& line) {
  const OptionRow& row = option_table()[setting.row];
  try {
    row.set(line, setting.argument ? setting.argument->c_str() : nullptr, setting.on);
  } catch (Error& e) {
    e.default_object(setting.shown);
    throw;
  }
  line.given.set(setting.row, setting.on);
}

}  // namespace stasis::cli
