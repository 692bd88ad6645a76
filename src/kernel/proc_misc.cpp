#include "kernel/proc_misc.h"

#include <cstring>

#include "kernel/proc_text.h"

namespace stasis {
namespace {

using proc_text::Cursor;

template <class T>
T single_number(std::string_view text, std::string_view file, int base = 10) {
  const auto value = proc_text::whole_number<T>(text, base);
  if (!value) proc_text::bad(file, "it is not one number", text);
  return *value;
}

// "thread/tid.42", "signal/pid.7", "none/pid.7"
void parse_notify(std::string_view text, PosixTimer& timer) {
  const size_t slash = text.find('/');
  const size_t dot = text.find('.');
  if (slash == std::string_view::npos || dot == std::string_view::npos || dot < slash)
    proc_text::bad("timers", "a notify line is cut", text);
  const std::string_view how = text.substr(0, slash);
  if (how == "signal")
    timer.notify = PosixTimer::Notify::signal;
  else if (how == "none")
    timer.notify = PosixTimer::Notify::none;
  else if (how == "thread")
    timer.notify = PosixTimer::Notify::thread;
  else
    proc_text::bad("timers", "a kind of notification is not known", text);
  timer.thread_directed = text.substr(slash + 1, dot - slash - 1) == "tid";
  timer.target = Cursor(text.substr(dot + 1), "timers").number<pid_t>();
}

}  // namespace

std::vector<PosixTimer> parse_timers(std::string_view text) {
  std::vector<PosixTimer> out;
  while (!text.empty()) {
    const std::string_view line = proc_text::take_line(text);
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) proc_text::bad("timers", "a line has no key", line);
    const std::string_view key = line.substr(0, colon);
    Cursor c(line.substr(colon + 1), "timers");
    if (key == "ID") {
      out.emplace_back().id = c.number<int>();
      continue;
    }
    if (out.empty()) proc_text::bad("timers", "it does not begin with an ID", line);
    PosixTimer& timer = out.back();
    if (key == "signal") {
      timer.signo = c.number<int>();
      c.expect('/');
      timer.sigval = c.number<uint64_t>(16);
    } else if (key == "notify") {
      parse_notify(proc_text::trim(c.rest()), timer);
    } else if (key == "ClockID") {
      timer.clock_id = c.number<int>();
    }
  }
  return out;
}

std::vector<pid_t> parse_children(std::string_view text) {
  std::vector<pid_t> out;
  Cursor c(proc_text::trim(text), "children");
  for (; !c.at_end(); c.skip_blanks()) out.push_back(c.number<pid_t>());
  return out;
}

TimeNsOffsets parse_timens_offsets(std::string_view text) {
  TimeNsOffsets out;
  int known = 0;
  const std::string_view all = text;
  while (!text.empty()) {
    Cursor c(proc_text::take_line(text), "timens_offsets");
    const std::string_view clock = c.word();
    ClockOffset* offset = nullptr;
    if (clock == "monotonic" || clock == "1") offset = &out.monotonic;
    if (clock == "boottime" || clock == "7") offset = &out.boottime;
    if (offset == nullptr) continue;
    offset->seconds = c.number<int64_t>();
    offset->nanoseconds = c.number<int64_t>();
    ++known;
  }
  if (known != 2) proc_text::bad("timens_offsets", "the two clocks are not both there", all);
  return out;
}

std::vector<IdMapEntry> parse_id_map(std::string_view text) {
  std::vector<IdMapEntry> out;
  while (!text.empty()) {
    Cursor c(proc_text::take_line(text), "uid_map");
    IdMapEntry entry;
    entry.inside = c.number<uint32_t>();
    entry.outside = c.number<uint32_t>();
    entry.count = c.number<uint32_t>();
    out.push_back(entry);
  }
  return out;
}

std::vector<AuxEntry> parse_auxv(std::span<const std::byte> bytes) {
  std::vector<AuxEntry> out;
  out.reserve(bytes.size() / sizeof(AuxEntry));
  for (size_t at = 0; at + sizeof(AuxEntry) <= bytes.size(); at += sizeof(AuxEntry)) {
    AuxEntry entry;
    std::memcpy(&entry, bytes.data() + at, sizeof entry);
    if (entry.type == 0) break;  // AT_NULL
    out.push_back(entry);
  }
  return out;
}

uint32_t parse_loginuid(std::string_view text) {
  return single_number<uint32_t>(text, "loginuid");
}

int parse_oom_score_adj(std::string_view text) {
  return single_number<int>(text, "oom_score_adj");
}

uint32_t parse_coredump_filter(std::string_view text) {
  return single_number<uint32_t>(text, "coredump_filter", 16);
}

std::optional<int> parse_autogroup_nice(std::string_view text) {
  // "/autogroup-42 nice 5"
  text = proc_text::trim(text);
  if (text.empty()) return std::nullopt;
  Cursor c(text, "autogroup");
  c.skip_words(1);
  if (c.word() != "nice") c.fail("a word is missing");
  return c.number<int>();
}

}  // namespace stasis
