#include "kernel/proc_mounts.h"

#include "kernel/proc_text.h"

namespace stasis {
namespace {

using proc_text::Cursor;

bool octal(char c) noexcept {
  return c >= '0' && c <= '7';
}

// "shared:12", "master:3", "propagate_from:2", "unbindable"; others are of a newer kernel and skipped.
void optional_field(std::string_view word, MountInfo& m) {
  const size_t colon = word.find(':');
  const std::string_view key = word.substr(0, colon);
  if (key == "unbindable") m.unbindable = true;
  if (colon == std::string_view::npos) return;
  Cursor c(word.substr(colon + 1), "mountinfo");
  if (key == "shared") m.shared = c.number<int>();
  if (key == "master") m.master = c.number<int>();
  if (key == "propagate_from") m.propagate_from = c.number<int>();
}

}  // namespace

std::string unescape_octal(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size() && text[i + 1] <= '3' && octal(text[i + 1]) && octal(text[i + 2]) &&
        octal(text[i + 3])) {
      out.push_back(static_cast<char>(((text[i + 1] - '0') << 6) | ((text[i + 2] - '0') << 3) | (text[i + 3] - '0')));
      i += 3;
    } else {
      out.push_back(text[i]);
    }
  }
  return out;
}

// "36 35 98:0 /root /mount/point rw,noatime master:1 - ext3 /dev/root rw,errors=continue"
MountInfo parse_mountinfo_line(std::string_view line) {
  Cursor c(line, "mountinfo");
  MountInfo m;
  m.id = c.number<int>();
  m.parent_id = c.number<int>();
  m.dev_major = c.number<uint32_t>();
  c.expect(':');
  m.dev_minor = c.number<uint32_t>();
  m.root = unescape_octal(c.word());
  m.mount_point = unescape_octal(c.word());
  m.options = unescape_octal(c.word());
  for (std::string_view word = c.word(); word != "-"; word = c.word()) {
    if (word.empty()) c.fail("the separator of the optional fields is missing");
    optional_field(word, m);
  }
  m.fs_type = unescape_octal(c.word());
  if (m.fs_type.empty() || c.at_end()) c.fail("the line ends too early");
  // A source may be empty ("mount -t tmpfs ''"): then two blanks follow each other, which word() would skip.
  c.expect(' ');
  const size_t blank = c.rest().find(' ');
  if (blank == std::string_view::npos) c.fail("the line ends too early");
  m.source = unescape_octal(c.rest().substr(0, blank));
  m.super_options = unescape_octal(c.rest().substr(blank + 1));
  return m;
}

std::vector<MountInfo> parse_mountinfo(std::string_view text) {
  std::vector<MountInfo> out;
  while (!text.empty()) out.push_back(parse_mountinfo_line(proc_text::take_line(text)));
  return out;
}

// "4:cpu,cpuacct:/user.slice" or "0::/init.scope"; the path may hold colons.
std::vector<CgroupMembership> parse_cgroup(std::string_view text) {
  constexpr std::string_view suffix = " (deleted)";
  std::vector<CgroupMembership> out;
  while (!text.empty()) {
    const std::string_view line = proc_text::take_line(text);
    Cursor c(line, "cgroup");
    CgroupMembership& member = out.emplace_back();
    member.hierarchy = c.number<int>();
    c.expect(':');
    const size_t colon = c.rest().find(':');
    if (colon == std::string_view::npos) c.fail("the path is missing");
    member.controllers.assign(c.rest().substr(0, colon));
    std::string_view path = c.rest().substr(colon + 1);
    if (path.ends_with(suffix)) {
      member.deleted = true;
      path.remove_suffix(suffix.size());
    }
    member.path.assign(path);
  }
  return out;
}

}  // namespace stasis
