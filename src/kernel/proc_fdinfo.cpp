#include "kernel/proc_fdinfo.h"

#include "kernel/proc_text.h"

namespace stasis {
namespace {

using proc_text::Cursor;

FileLock::Kind lock_kind(std::string_view word) noexcept {
  using Kind = FileLock::Kind;
  if (word == "FLOCK") return Kind::flock;
  if (word == "POSIX") return Kind::posix;
  if (word == "OFDLCK") return Kind::ofd;
  if (word == "LEASE") return Kind::lease;
  if (word == "DELEG") return Kind::delegation;
  if (word == "LAYOUT") return Kind::layout;
  if (word == "ACCESS") return Kind::access;
  return Kind::unknown;
}

FileLock::Type lock_type(std::string_view word) noexcept {
  using Type = FileLock::Type;
  if (word == "READ") return Type::read;
  if (word == "WRITE") return Type::write;
  if (word == "UNLCK" || word == "NONE") return Type::none;
  return Type::unknown;
}

}  // namespace

// "1: POSIX  ADVISORY  WRITE 1234 08:01:5678 0 EOF"; "1: -> FLOCK ..." for a waiter.
FileLock parse_lock_line(std::string_view line) {
  Cursor c(line, "locks");
  FileLock lock;
  lock.id = c.number<uint64_t>();
  c.expect(':');
  std::string_view word = c.word();
  if (word == "->") {
    lock.waiting = true;
    word = c.word();
  }
  lock.kind = lock_kind(word);
  lock.mode = c.word();
  lock.type = lock_type(c.word());
  lock.pid = c.number<pid_t>();
  c.skip_blanks();
  if (c.rest().starts_with("<none>")) {
    c.skip_words(1);  // no inode: a lease whose file is gone
  } else {
    lock.dev_major = c.number<uint32_t>(16);
    c.expect(':');
    lock.dev_minor = c.number<uint32_t>(16);
    c.expect(':');
    lock.inode = c.number<uint64_t>();
  }
  lock.start = c.number<uint64_t>();
  c.skip_blanks();
  lock.end = c.rest().starts_with("EOF") ? FileLock::kToEnd : c.number<uint64_t>();
  return lock;
}

std::vector<FileLock> parse_locks(std::string_view text) {
  std::vector<FileLock> out;
  while (!text.empty()) out.push_back(parse_lock_line(proc_text::take_line(text)));
  return out;
}

FdInfo parse_fdinfo(std::string_view text) {
  // The kernel writes pos, flags, mnt_id and (5.14) ino, then the locks, then the lines of the file's own kind
  // (fs/proc/fd.c), so the rest is one piece.
  FdInfo info;
  bool saw_flags = false;
  const std::string_view all = text;
  while (!text.empty()) {
    std::string_view after = text;
    const std::string_view line = proc_text::take_line(after);
    if (line.starts_with("pos:")) {
      // Anonymous inodes may show a negative position; it is kept as the same bits.
      const auto pos = proc_text::whole_number<int64_t>(line.substr(4));
      if (!pos) proc_text::bad("fdinfo", "the position is no number", line);
      info.pos = static_cast<uint64_t>(*pos);
    } else if (line.starts_with("flags:")) {
      const auto flags = proc_text::whole_number<uint32_t>(line.substr(6), 8);
      if (!flags) proc_text::bad("fdinfo", "the flags are no octal number", line);
      info.flags = *flags;
      saw_flags = true;
    } else if (line.starts_with("mnt_id:")) {
      info.mnt_id = Cursor(line.substr(7), "fdinfo").number<int>();
    } else if (line.starts_with("ino:")) {
      info.inode = Cursor(line.substr(4), "fdinfo").number<uint64_t>();
    } else if (line.starts_with("lock:")) {
      info.locks.push_back(proc_text::trim(line.substr(5)));
    } else {
      break;
    }
    text = after;
  }
  if (!saw_flags) proc_text::bad("fdinfo", "the line flags is missing", all);
  info.rest = text;
  return info;
}

std::optional<std::string_view> FdInfo::value(std::string_view key) const noexcept {
  std::string_view left = rest;
  while (!left.empty()) {
    const std::string_view line = proc_text::take_line(left);
    if (line.size() > key.size() && line.starts_with(key) && line[key.size()] == ':')
      return proc_text::trim(line.substr(key.size() + 1));
  }
  return std::nullopt;
}

std::optional<uint64_t> FdInfo::number(std::string_view key, int base) const noexcept {
  const auto text = value(key);
  if (!text) return std::nullopt;
  return proc_text::whole_number<uint64_t>(*text, base);
}

}  // namespace stasis
