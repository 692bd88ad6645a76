#include "cli/config_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/error.h"
#include "base/fd.h"

namespace stasis::cli {

namespace {

constexpr std::string_view kBlanks = " \t\r\f\v";
// Far more than anybody writes by hand; a device or a wrong file must not fill the memory.
constexpr size_t kMaxFileBytes = 1u << 20;

[[noreturn]] void malformed(std::string what) {
  throw Error(Reason::BAD_CONFIG_FILE, std::move(what));
}

std::string_view trim_left(std::string_view text) {
  const size_t start = text.find_first_not_of(kBlanks);
  return start == std::string_view::npos ? std::string_view{} : text.substr(start);
}

// Takes "..." from the front of `text`; only \" is an escape.
std::string take_quoted(std::string_view& text) {
  std::string out;
  for (size_t i = 1; i < text.size(); ++i) {
    if (text[i] == '"') {
      text.remove_prefix(i + 1);
      return out;
    }
    if (text[i] == '\\' && i + 1 < text.size() && text[i + 1] == '"') ++i;
    out += text[i];
  }
  malformed("the quote is not closed");
}

// What stands behind the name of an option; nothing if there is no argument.
std::optional<std::string> parse_argument(std::string_view text) {
  // A comment starts at any #, even within quotes: that is how these files have always been read.
  text = trim_left(text.substr(0, text.find('#')));
  if (text.empty()) return std::nullopt;
  std::string argument;
  if (text.front() == '"') {
    argument = take_quoted(text);
  } else {
    const size_t end = std::min(text.find_first_of(kBlanks), text.size());
    argument = text.substr(0, end);
    text.remove_prefix(end);
  }
  if (!trim_left(text).empty()) malformed("the option has more than one argument");
  return argument;
}

std::optional<Setting> parse_line(std::string_view line) {
  line = trim_left(line);
  if (line.empty() || line.front() == '#') return std::nullopt;
  const size_t name_end = std::min(line.find_first_of(kBlanks), line.size());
  const std::string name(line.substr(0, name_end));
  const std::optional<std::string> argument = parse_argument(line.substr(name_end));

  // Abbreviations and --no- forms work as on the command line, because getopt_long reads the line. It looks no
  // further than the first option: a word behind an option that does not take one is dropped.
  std::vector<std::string> words = {"--" + name};
  if (argument) words.push_back(*argument);
  Setting setting = scan_first(words);
  const OptionRow& row = option_table()[setting.row];
  if (row.argument == Argument::required && argument && name.find('=') != std::string::npos) {
    malformed("the option has more than one argument");
  }
  if (row.name == "help" || row.name == "version" || row.name == "config" || row.name == "no-default-config") {
    malformed("the option only makes sense on the command line");
  }
  return setting;
}

}  // namespace

std::vector<Setting> parse_config_text(std::string_view text, const std::string& shown_name) {
  std::vector<Setting> settings;
  for (int number = 1; !text.empty(); ++number) {
    const size_t end = std::min(text.find('\n'), text.size());
    try {
      if (std::optional<Setting> setting = parse_line(text.substr(0, end))) {
        setting->shown = fmt::format("{}:{}: {}", shown_name, number, option_table()[setting->row].name);
        settings.push_back(std::move(*setting));
      }
    } catch (const Error& e) {
      throw Error(Reason::BAD_CONFIG_FILE, e.cause()).object(fmt::format("{}:{}", shown_name, number));
    }
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return settings;
}

std::optional<std::vector<Setting>> read_config_file(const std::string& path) {
  const auto fail = [&path](std::string what, int error_number) -> Error {
    return Error(Reason::BAD_CONFIG_FILE, std::move(what)).object(path).error_number(error_number);
  };
  const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) {
    if (errno == ENOENT || errno == ENOTDIR) return std::nullopt;
    throw fail("cannot open the configuration file", errno);
  }
  std::string text;
  char buffer[4096];
  for (;;) {
    const ssize_t n = ::read(file.get(), buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw fail("cannot read the configuration file", errno);
    if (n == 0) break;
    text.append(buffer, static_cast<size_t>(n));
    if (text.size() > kMaxFileBytes) throw fail("the configuration file is too large", 0);
  }
  if (text.find('\0') != std::string::npos) throw fail("the configuration file is not text", 0);
  return parse_config_text(text, path);
}

}  // namespace stasis::cli
