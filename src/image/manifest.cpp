#include "image/manifest.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <charconv>

#include "base/error.h"

// Text, one line a file, in the order of names:
//
//   stasis-manifest 1
//   1042 5a0c8f0e6d1b2a37 core-42.img
//   8192 - pages-1.img
//   end 2 0d3f5b7a9c1e2f40
//
// Size, checksum or "-", name; the last line has the number of files and the checksum of all lines before it.

namespace stasis {

namespace {

constexpr std::string_view kFirstLine = "stasis-manifest 1";

[[noreturn]] void fail(Reason reason, std::string what, const std::string& shown_name) {
  throw Error(reason, std::move(what))
      .object(shown_name)
      .remedy("copy the images again from where they were made; a manifest that is known to be wrong may be removed");
}

class Lines {
 public:
  Lines(std::string_view text, const std::string& shown_name) : text_(text), shown_name_(shown_name) {}

  std::string_view next() {
    start_ = offset_;
    size_t end = text_.find('\n', offset_);
    if (end == std::string_view::npos) fail(Reason::IMAGE_TRUNCATED, "the manifest ends too early", shown_name_);
    offset_ = end + 1;
    return text_.substr(start_, end - start_);
  }
  bool at_end() const { return offset_ == text_.size(); }
  // What comes before the line returned last.
  std::string_view before() const { return text_.substr(0, start_); }

 private:
  std::string_view text_;
  size_t start_ = 0;
  size_t offset_ = 0;
  const std::string& shown_name_;
};

// Cuts the text up to the next space off `line`.
std::string_view cut_word(std::string_view& line) {
  std::string_view word = line.substr(0, line.find(' '));
  line.remove_prefix(std::min(line.size(), word.size() + 1));
  return word;
}

std::optional<uint64_t> number(std::string_view word, int base) {
  uint64_t value = 0;
  auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value, base);
  if (error != std::errc() || end != word.data() + word.size()) return std::nullopt;
  return value;
}

bool decode_line(std::string_view line, Manifest& manifest) {
  std::optional<uint64_t> size_bytes = number(cut_word(line), 10);
  std::string_view checksum_word = cut_word(line);
  ManifestEntry entry{size_bytes.value_or(0), number(checksum_word, 16)};
  if (!size_bytes || (!entry.checksum && checksum_word != "-")) return false;
  // A name from a file must not lead out of the directory.
  if (line.empty() || line.find('/') != std::string_view::npos) return false;
  return manifest.emplace(line, entry).second;
}

}  // namespace

uint64_t image_checksum(std::string_view bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

std::string encode_manifest(const Manifest& manifest) {
  std::string text = fmt::format("{}\n", kFirstLine);
  for (const auto& [name, entry] : manifest) {
    std::string checksum = entry.checksum ? fmt::format("{:016x}", *entry.checksum) : "-";
    text += fmt::format("{} {} {}\n", entry.size_bytes, checksum, name);
  }
  text += fmt::format("end {} {:016x}\n", manifest.size(), image_checksum(text));
  return text;
}

Manifest decode_manifest(std::string_view text, const std::string& shown_name) {
  Lines lines(text, shown_name);
  if (lines.next() != kFirstLine) fail(Reason::IMAGE_CORRUPT, "the manifest has an unknown first line", shown_name);
  Manifest manifest;
  for (;;) {
    std::string_view line = lines.next();
    if (line.starts_with("end ")) {
      std::string wanted = fmt::format("end {} {:016x}", manifest.size(), image_checksum(lines.before()));
      if (line != wanted || !lines.at_end()) fail(Reason::IMAGE_CORRUPT, "the manifest is damaged", shown_name);
      return manifest;
    }
    if (!decode_line(line, manifest)) {
      fail(Reason::IMAGE_CORRUPT, fmt::format("the manifest has a damaged line: {}", line), shown_name);
    }
  }
}

}  // namespace stasis
