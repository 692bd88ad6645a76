// Shared by the /proc parsers of this layer: a cursor over kernel text. Allocates nothing, never reads past the end.
#pragma once

#include <charconv>
#include <optional>
#include <string_view>

#include "base/source_place.h"

namespace stasis::proc_text {

// Throws Error(PROC_TEXT); `file` is the name users know ("stat"), `sample` the text at fault (shortened).
[[noreturn]] void bad(std::string_view file, std::string_view why, std::string_view sample,
                      SourcePlace place = SourcePlace::here());

inline bool is_blank(char c) noexcept {
  return c == ' ' || c == '\t';
}

inline std::string_view trim(std::string_view s) noexcept {
  while (!s.empty() && (is_blank(s.front()) || s.front() == '\n')) s.remove_prefix(1);
  while (!s.empty() && (is_blank(s.back()) || s.back() == '\n')) s.remove_suffix(1);
  return s;
}

// Cuts the first line off `text`, without its newline. The text must not be empty.
inline std::string_view take_line(std::string_view& text) noexcept {
  const size_t end = text.find('\n');
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  return line;
}

// The whole of `s` as a number, blanks around it allowed.
template <class T>
std::optional<T> whole_number(std::string_view s, int base = 10) noexcept {
  s = trim(s);
  T value{};
  const auto [end, error] = std::from_chars(s.data(), s.data() + s.size(), value, base);
  if (error != std::errc() || end != s.data() + s.size() || s.empty()) return std::nullopt;
  return value;
}

class Cursor {
 public:
  Cursor(std::string_view text, std::string_view file) : rest_(text), all_(text), file_(file) {}

  bool at_end() const noexcept { return rest_.empty(); }
  std::string_view rest() const noexcept { return rest_; }
  char peek() const noexcept { return rest_.empty() ? '\0' : rest_.front(); }

  void skip_blanks() noexcept {
    while (!rest_.empty() && is_blank(rest_.front())) rest_.remove_prefix(1);
  }
  void expect(char c) {
    if (peek() != c || rest_.empty()) fail("a separator is missing");
    rest_.remove_prefix(1);
  }
  char take() {
    if (rest_.empty()) fail("the text ends too early");
    const char c = rest_.front();
    rest_.remove_prefix(1);
    return c;
  }
  // Skips blanks, then reads a number and stops at the first character that does not belong to it.
  template <class T>
  T number(int base = 10) {
    skip_blanks();
    T value{};
    const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), value, base);
    if (error != std::errc()) fail("a number is missing or out of range");
    rest_.remove_prefix(static_cast<size_t>(end - rest_.data()));
    return value;
  }
  // Skips blanks, then takes what stands before the next blank or newline; may be empty at the end.
  std::string_view word() noexcept {
    skip_blanks();
    size_t n = 0;
    while (n < rest_.size() && !is_blank(rest_[n]) && rest_[n] != '\n') ++n;
    const std::string_view out = rest_.substr(0, n);
    rest_.remove_prefix(n);
    return out;
  }
  void skip_words(int count) {
    for (int i = 0; i < count; ++i)
      if (word().empty()) fail("a field is missing");
  }
  [[noreturn]] void fail(std::string_view why) const { bad(file_, why, all_); }

 private:
  std::string_view rest_;
  std::string_view all_;
  std::string_view file_;
};

}  // namespace stasis::proc_text
