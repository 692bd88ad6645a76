#include "cli/values.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>

#include "base/error.h"

namespace stasis::cli {

namespace {

[[noreturn]] void bad(std::string what, std::string remedy = "") {
  throw Error(Reason::BAD_OPTION, std::move(what)).remedy(std::move(remedy));
}

// "name[key]" or "name[key]:value".
struct Bracketed {
  std::string_view name;
  std::string_view key;
  std::string_view value;
  bool has_value = false;
};

Bracketed parse_bracketed(std::string_view text, std::string_view shape) {
  // Keys are paths or names which may hold brackets themselves: the value starts at the first "]:" and a key
  // without value ends at the last "]".
  const size_t open = text.find('[');
  if (open == std::string_view::npos) bad(fmt::format("\"{}\" lacks a [", text), fmt::format("write {}", shape));
  Bracketed out{.name = text.substr(0, open), .key = {}, .value = {}};
  const size_t close = text.find("]:", open);
  if (close != std::string_view::npos) {
    out.key = text.substr(open + 1, close - open - 1);
    out.value = text.substr(close + 2);
    out.has_value = true;
  } else if (text.back() == ']') {
    out.key = text.substr(open + 1, text.size() - open - 2);
  } else {
    bad(fmt::format("\"{}\" lacks a ]", text), fmt::format("write {}", shape));
  }
  return out;
}

enum class Needs { key, key_and_value, value_optional };

struct ExternalType {
  std::string_view name;
  Needs needs;
  std::string_view shape;
};

constexpr ExternalType kExternalTypes[] = {
    {"mnt", Needs::value_optional, "mnt[MOUNTPOINT]:COOKIE, mnt[COOKIE]:PATH or mnt[]"},
    {"dev", Needs::key_and_value, "dev[MAJOR/MINOR]:NAME or dev[NAME]:DEVICE"},
    {"file", Needs::key, "file[MNT_ID:INODE]"},
    {"tty", Needs::key, "tty[RDEV:DEV]"},
    {"unix", Needs::key, "unix[INODE]"},
    {"net", Needs::value_optional, "net[INODE]:NAME"},
    {"pid", Needs::value_optional, "pid[INODE]:NAME"},
    {"veth", Needs::key_and_value, "veth[IFNAME]:OUT@BRIDGE"},
    {"macvlan", Needs::key_and_value, "macvlan[IFNAME]:OUT"},
    {"netdev", Needs::key_and_value, "netdev[IFNAME]:ORIGINAL"},
};

}  // namespace

uint64_t parse_number(std::string_view text, uint64_t low, uint64_t high) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc::invalid_argument || end != text.data() + text.size()) {
    bad(fmt::format("\"{}\" is not a number", text), "give decimal digits");
  }
  if (error != std::errc{} || value < low || value > high) {
    bad(fmt::format("{} is out of range", text), fmt::format("give a number from {} to {}", low, high));
  }
  return value;
}

uint64_t parse_size_bytes(std::string_view text) {
  const std::string_view whole = text;
  unsigned shift = 0;
  if (!text.empty()) {
    switch (text.back()) {
      case 'k':
      case 'K':
        shift = 10;
        break;
      case 'm':
      case 'M':
        shift = 20;
        break;
      case 'g':
      case 'G':
        shift = 30;
        break;
    }
    if (shift != 0) text.remove_suffix(1);
  }
  if (text.empty() || text.find_first_not_of("0123456789") != std::string_view::npos)
    bad(fmt::format("\"{}\" is not a size", whole), "give decimal digits, followed by K, M or G for larger units");
  return parse_number(text, 0, std::numeric_limits<uint64_t>::max() >> shift) << shift;
}

int parse_verbosity(const char* text, int level) {
  if (text == nullptr) return level + 1;
  std::string_view rest = text;
  // -verbosity=4: one dash too few, but common (see the header).
  constexpr std::string_view tail = "erbosity";
  if (rest.starts_with(tail)) {
    rest.remove_prefix(tail.size());
    if (rest.empty()) return level + 1;
    if (rest.front() == '=') rest.remove_prefix(1);
  }
  if (!rest.empty() && rest.find_first_not_of('v') == std::string_view::npos) {
    return level + 1 + static_cast<int>(std::min<size_t>(rest.size(), 4));
  }
  return static_cast<int>(parse_number(rest, 0, std::numeric_limits<int>::max() / 2));
}

void parse_cpu_list(const char* text, CpuChecks& checks) {
  for (std::string_view word : split(text == nullptr ? "all" : text, ',')) {
    bool wanted = true;
    if (word.starts_with('^')) {
      wanted = false;
      word.remove_prefix(1);
    }
    if (word == "none") {
      word = "all";
      wanted = !wanted;
    }
    if (word != "all" && word != "fpu" && word != "cpu" && word != "ins") {
      bad(fmt::format("\"{}\" is no group of CPU features", word), "choose from fpu, cpu, ins, all and none");
    }
    if (word == "all" || word == "fpu") checks.fpu = wanted;
    if (word == "all" || word == "cpu") checks.cpu = wanted;
    if (word == "all" || word == "ins") checks.ins = wanted;
    checks.image = checks.fpu || checks.cpu || checks.ins;
  }
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> out;
  for (;;) {
    const size_t end = text.find(separator);
    out.emplace_back(text.substr(0, end));
    if (end == std::string_view::npos) return out;
    text.remove_prefix(end + 1);
  }
}

NetworkLock parse_network_lock(std::string_view text) {
  if (text == "iptables") return NetworkLock::iptables;
  if (text == "nftables") return NetworkLock::nftables;
  if (text == "skip" || text == "none") return NetworkLock::skip;
  bad(fmt::format("there is no way \"{}\" to lock the network", text), "choose from iptables, nftables and skip");
}

std::string parse_loss(std::string_view text) {
  for (const std::string_view name : kLosses)
    if (name == text) return std::string(name);
  bad(fmt::format("there is no state \"{}\" to leave out", text),
      "choose from core-scheduling, landlock and unread-events");
}

MemorySnapshot parse_memory_snapshot(std::string_view text) {
  if (text == "auto") return MemorySnapshot::automatic;
  if (text == "fork") return MemorySnapshot::fork;
  if (text == "copy") return MemorySnapshot::copy;
  bad(fmt::format("there is no way \"{}\" to hold memory still", text), "choose from auto, fork and copy");
}

CpuAffinityChoice parse_cpu_affinity(std::string_view text) {
  if (text == "keep") return CpuAffinityChoice::keep;
  if (text == "ignore") return CpuAffinityChoice::inherit;
  bad(fmt::format("there is no way \"{}\" to treat the CPU affinity", text), "choose from keep and ignore");
}

FileValidation parse_file_validation(std::string_view text) {
  if (text == "filesize") return FileValidation::size;
  if (text == "buildid") return FileValidation::build_id;
  bad(fmt::format("there is no way \"{}\" to validate files", text), "choose from filesize and buildid");
}

CgroupMode parse_cgroup_mode(std::string_view text) {
  if (text == "ignore") return CgroupMode::ignore;
  if (text == "none") return CgroupMode::none;
  if (text == "props") return CgroupMode::props;
  if (text == "soft") return CgroupMode::soft;
  if (text == "full") return CgroupMode::full;
  if (text == "strict") return CgroupMode::strict;
  bad(fmt::format("there is no mode \"{}\"", text), "choose from ignore, none, props, soft, full and strict");
}

CgroupRoot parse_cgroup_root(std::string_view text) {
  CgroupRoot out;
  // A controller name never starts with a slash, so the first colon only separates if the text does not.
  const size_t colon = text.starts_with('/') ? std::string_view::npos : text.find(':');
  if (colon != std::string_view::npos) {
    out.controller = text.substr(0, colon);
    text.remove_prefix(colon + 1);
  }
  if (!text.starts_with('/')) {
    bad(fmt::format("\"{}\" is not an absolute path", text), "write [CONTROLLER:]/PATH");
  }
  out.path = text;
  return out;
}

InheritedFd parse_inherit_fd(std::string_view text, bool& is_debug) {
  constexpr std::string_view shape = "fd[NUMBER]:RESOURCE";
  const Bracketed parts = parse_bracketed(text, shape);
  is_debug = parts.name == "debug";
  if (!is_debug && parts.name != "fd") {
    bad(fmt::format("\"{}\" does not start with fd[", text), fmt::format("write {}", shape));
  }
  if (!parts.has_value || parts.value.empty()) {
    bad(fmt::format("\"{}\" names no resource", text), fmt::format("write {}", shape));
  }
  const uint64_t fd = parse_number(parts.key, 0, std::numeric_limits<int>::max());
  return {.fd = static_cast<int>(fd), .key = std::string(parts.value)};
}

JoinNamespace parse_join_ns(std::string_view text) {
  constexpr std::string_view kinds[] = {"net", "uts", "time", "ipc", "user", "mnt"};
  const size_t colon = text.find(':');
  if (colon == std::string_view::npos || colon + 1 == text.size()) {
    bad(fmt::format("\"{}\" names no namespace", text), "write TYPE:PID or TYPE:FILE");
  }
  JoinNamespace out;
  out.kind = text.substr(0, colon);
  if (std::ranges::find(kinds, out.kind) == std::end(kinds)) {
    bad(fmt::format("a namespace of type \"{}\" cannot be joined", out.kind),
        "choose from net, uts, time, ipc, user and mnt");
  }
  std::vector<std::string> parts = split(text.substr(colon + 1), ',');
  out.target = std::move(parts[0]);
  if (parts.size() == 1) return out;
  if (out.kind != "user" || parts.size() != 3) {
    bad(fmt::format("\"{}\" has the wrong number of parts", text), "only user:PID,UID,GID takes more than a target");
  }
  constexpr uint64_t last_id = std::numeric_limits<uint32_t>::max() - 1;  // -1 means "no change" to the kernel
  out.uid = static_cast<uint32_t>(parse_number(parts[1], 0, last_id));
  out.gid = static_cast<uint32_t>(parse_number(parts[2], 0, last_id));
  return out;
}

void check_external(std::string_view text) {
  if (text.empty()) bad("the resource has no name", "write TYPE[KEY]:VALUE");
  for (const ExternalType& type : kExternalTypes) {
    if (!text.starts_with(type.name) || (text.size() > type.name.size() && text[type.name.size()] != '[')) continue;
    const Bracketed parts = parse_bracketed(text, type.shape);
    if (type.name != "mnt" && parts.key.empty()) {
      bad(fmt::format("\"{}\" has nothing in its brackets", text), fmt::format("write {}", type.shape));
    }
    if (type.needs == Needs::key_and_value && parts.value.empty()) {
      bad(fmt::format("\"{}\" has nothing behind its brackets", text), fmt::format("write {}", type.shape));
    }
    return;
  }
}

}  // namespace stasis::cli
