#include "kernel/proc_maps.h"

#include <array>

#include "kernel/proc_text.h"

namespace stasis {
namespace {

using proc_text::Cursor;

constexpr std::array<std::string_view, kVmFlagCount> kVmFlagNames = {
    "rd", "wr", "ex", "sh", "mr", "mw", "me", "ms", "gd", "pf", "dw", "lo", "lf", "io",
    "sr", "rr", "dc", "de", "ac", "nr", "ht", "sf", "nl", "ar", "wf", "dd", "sd", "mm",
    "hg", "nh", "mg", "bt", "mt", "mp", "um", "uw", "ui", "ss", "sl", "dp", "gu"};

// Two letters to bit number + 1, so that a flag costs one load: smaps has some ten of them per mapping.
constexpr auto kVmFlagTable = [] {
  std::array<uint8_t, size_t{26} * 26> table{};
  for (size_t i = 0; i < kVmFlagNames.size(); ++i)
    table[static_cast<size_t>(kVmFlagNames[i][0] - 'a') * 26 + static_cast<size_t>(kVmFlagNames[i][1] - 'a')] =
        static_cast<uint8_t>(i + 1);
  return table;
}();
static_assert(kVmFlagNames[static_cast<size_t>(VmFlag::gu)] == "gu");
static_assert(kVmFlagNames[static_cast<size_t>(VmFlag::wf)] == "wf");
static_assert(kVmFlagNames[static_cast<size_t>(VmFlag::um)] == "um");

bool lower(char c) noexcept {
  return c >= 'a' && c <= 'z';
}

void parse_vm_flags(std::string_view text, Mapping& m) {
  Cursor c(text, "smaps");
  for (std::string_view word = c.word(); !word.empty(); word = c.word()) {
    uint8_t bit = 0;
    if (word.size() == 2 && lower(word[0]) && lower(word[1]))
      bit = kVmFlagTable[static_cast<size_t>(word[0] - 'a') * 26 + static_cast<size_t>(word[1] - 'a')];
    if (bit != 0) {
      m.vm_flags |= uint64_t{1} << (bit - 1);
      continue;
    }
    // Kernels that have no letters for VM_LOCKONFAULT yet (Linux 6.1) show it like this.
    if (word == "??" && m.has(VmFlag::lo)) {
      m.vm_flags |= uint64_t{1} << static_cast<unsigned>(VmFlag::lf);
      continue;
    }
    if (!m.unknown_vm_flags.empty()) m.unknown_vm_flags.push_back(' ');
    m.unknown_vm_flags.append(word);
  }
}

void set_name(std::string_view text, Mapping& m) {
  constexpr std::string_view suffix = " (deleted)";
  if (text.ends_with(suffix) && text.starts_with('/')) {
    m.deleted = true;
    text.remove_suffix(suffix.size());
  }
  if (text.find("\\012") == std::string_view::npos) {
    m.name.assign(text);
    return;
  }
  for (size_t at = 0; at < text.size();) {
    const bool newline = text.substr(at).starts_with("\\012");
    m.name.push_back(newline ? '\n' : text[at]);
    at += newline ? 4 : 1;
  }
}

// "55d0c000-55d0d000 r-xp 00001000 08:01 1234                       /path with blanks"
void parse_header(std::string_view line, Mapping& m) {
  Cursor c(line, "maps");
  m.start = c.number<uint64_t>(16);
  c.expect('-');
  m.end = c.number<uint64_t>(16);
  if (m.end <= m.start) c.fail("a mapping ends before it begins");
  c.expect(' ');
  m.read = c.take() == 'r';
  m.write = c.take() == 'w';
  m.exec = c.take() == 'x';
  m.shared = c.take() == 's';
  m.offset = c.number<uint64_t>(16);
  m.dev_major = c.number<uint32_t>(16);
  c.expect(':');
  m.dev_minor = c.number<uint32_t>(16);
  m.inode = c.number<uint64_t>();
  if (c.at_end()) return;
  // One blank ends the inode and more pad it to a column. Every name begins with '/', '[' or another visible character,
  // so leading blanks are never part of it; trailing ones are.
  c.expect(' ');
  c.skip_blanks();
  if (!c.at_end()) set_name(c.rest(), m);
}

// One "Key:   value" line below a header. The first letters sort out what is not wanted.
void parse_detail(std::string_view line, Mapping& m) {
  const auto kib = [&](std::string_view key) { return Cursor(line.substr(key.size()), "smaps").number<uint64_t>(); };
  switch (line.front()) {
    case 'V':
      if (line.starts_with("VmFlags:")) parse_vm_flags(line.substr(8), m);
      break;
    case 'K':
      if (line.starts_with("KernelPageSize:")) m.kernel_page_size_kib = static_cast<uint32_t>(kib("KernelPageSize:"));
      break;
    case 'L':
      if (line.starts_with("Locked:")) m.locked_kib = kib("Locked:");
      break;
    case 'P':
      if (line.starts_with("ProtectionKey:")) m.protection_key = static_cast<int>(kib("ProtectionKey:"));
      break;
    default:
      break;
  }
}

}  // namespace

void parse_maps(std::string_view text, std::vector<Mapping>& out) {
  while (!text.empty()) {
    const std::string_view line = proc_text::take_line(text);
    parse_header(line, out.emplace_back());
  }
}

void parse_smaps(std::string_view text, std::vector<Mapping>& out) {
  Mapping* current = nullptr;
  while (!text.empty()) {
    const std::string_view line = proc_text::take_line(text);
    // Detail lines begin with a capital letter, header lines with a lower case hexadecimal digit.
    if (line.empty() || line.front() < 'A' || line.front() > 'Z') {
      current = &out.emplace_back();
      parse_header(line, *current);
    } else if (current != nullptr) {
      parse_detail(line, *current);
    } else {
      proc_text::bad("smaps", "it does not begin with a mapping", line);
    }
  }
}

std::vector<Mapping> parse_maps(std::string_view text) {
  std::vector<Mapping> out;
  out.reserve(text.size() / 80);
  parse_maps(text, out);
  return out;
}

std::vector<Mapping> parse_smaps(std::string_view text) {
  std::vector<Mapping> out;
  out.reserve(text.size() / 700);
  parse_smaps(text, out);
  return out;
}

}  // namespace stasis
