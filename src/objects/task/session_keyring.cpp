#include "objects/task/session_keyring.h"

#include <fmt/format.h>
#include <linux/keyctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "base/error.h"
#include "base/log.h"

namespace stasis {

namespace {

constexpr std::string_view kAnonymous = "_ses";
constexpr size_t kMostNames = 8;
constexpr size_t kLongestName = 4095;

long find_keyring(const char* name) {
  return syscall(SYS_request_key, "keyring", name, nullptr, 0);
}

// What this program sees and has. It does not change during a run.
struct OwnKeyrings {
  std::vector<VisibleKeyring> visible;
  std::vector<std::string> names;  // to ask for, the anonymous one first
  SessionKeyring::State keyring;

  // The kernel takes the first of that name that may be searched, and makes a new one if there is none.
  bool can_join(const SessionKeyring::State& other) const {
    constexpr uint32_t kSearchByUser = 0x080000, kSearchByOthers = 0x08;
    uint32_t joined = 0;
    size_t candidates = 0;
    for (const VisibleKeyring& v : visible) {
      if (v.name != other.name || (v.permissions & (v.uid == geteuid() ? kSearchByUser : kSearchByOthers)) == 0)
        continue;
      joined = v.serial;
      ++candidates;
    }
    return other.name != kAnonymous && candidates == 1 && joined == other.serial;
  }
};

const OwnKeyrings& own_keyrings() {
  static const OwnKeyrings found = [] {
    OwnKeyrings out;
    try {
      out.visible = parse_keyrings(read_system_file("keys"));
    } catch (const Error&) {
      return out;  // a kernel without keys
    }
    for (const VisibleKeyring& v : out.visible)
      if (std::ranges::find(out.names, v.name) == out.names.end()) out.names.push_back(v.name);
    std::stable_partition(out.names.begin(), out.names.end(), [](const std::string& n) { return n == kAnonymous; });
    for (const std::string& name : out.names) {
      const long serial = find_keyring(name.c_str());
      if (serial <= 0) continue;
      out.keyring = {name, static_cast<uint32_t>(serial)};
      break;
    }
    if (out.names.size() > kMostNames) out.names.resize(kMostNames);
    return out;
  }();
  return found;
}

}  // namespace

// "2b76a9b1 I--Q---     1 perm 3f030000     0     0 keyring   _ses: empty"
std::vector<VisibleKeyring> parse_keyrings(std::string_view text) {
  std::vector<VisibleKeyring> out;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    constexpr std::string_view kType = " keyring ";
    const size_t type = line.find(kType), end = line.rfind(": ");
    VisibleKeyring keyring;
    if (type == std::string_view::npos || end == std::string_view::npos || end < type + kType.size() ||
        std::sscanf(std::string(line).c_str(), "%x %*s %*s %*s %x %u", &keyring.serial, &keyring.permissions,
                    &keyring.uid) != 3)
      continue;
    std::string_view name = line.substr(type + kType.size(), end - type - kType.size());
    name.remove_prefix(std::min(name.size(), name.find_first_not_of(' ')));
    // The kernel's own, those of users, and what threads and processes have for themselves.
    if (name.empty() || name.starts_with('.') || name.starts_with("_uid") || name.starts_with("_persistent") ||
        name == "_tid" || name == "_pid")
      continue;
    keyring.name = name;
    out.push_back(std::move(keyring));
  }
  return out;
}

void SessionKeyring::prepare(const ProcStatus&) {
  own_keyrings();
}

void SessionKeyring::ask(const LookView&, SyscallBatch& batch, Ask& ask, State&) {
  if (own_keyrings().names.empty()) return;
  const BatchData type = batch.text("keyring");
  for (const std::string& keyring : own_keyrings().names)
    ask.calls.push_back(batch.call(SYS_request_key, {type, batch.text(keyring), nullptr, 0}));
}

void SessionKeyring::answer(const SyscallBatch& batch, const Ask& ask, State& state) {
  for (size_t i = 0; i < ask.calls.size(); ++i) {
    const auto serial = batch.result(ask.calls[i]);
    if (serial <= 0) continue;
    state = {own_keyrings().names[i], static_cast<uint32_t>(serial)};
    return;
  }
}

std::optional<Loss> SessionKeyring::loss(const State& state) {
  if (state.name.empty() || state.serial == own_keyrings().keyring.serial || own_keyrings().can_join(state))
    return std::nullopt;
  return Loss{
      .name = "session-keyring",
      .what = fmt::format("its session keyring ({}), which cannot be joined: a restored task has that of the restore",
                          state.name),
      .refuses = false};
}

void SessionKeyring::encode_extension(const State& state, pb::extension_task& task) {
  if (state.name.empty()) return;
  pb::extension_keyring& out = *task.mutable_thread()->mutable_session_keyring();
  out.set_name(state.name);
  out.set_serial(state.serial);
}

void SessionKeyring::decode_extension(const pb::extension_task& task, State& state) {
  if (!task.thread().has_session_keyring()) return;
  state.name = task.thread().session_keyring().name();
  state.serial = task.thread().session_keyring().serial();
  if (state.name.empty() || state.name.size() > kLongestName || state.name.find('\0') != std::string::npos)
    throw Error(Reason::IMAGE_CORRUPT, "the name of the session keyring makes no sense");
}

void SessionKeyring::settle(const State& state, const SettleView& view, SyscallBatch& batch) {
  if (state.name.empty() || state.serial == own_keyrings().keyring.serial) return;
  // By the name of one that is gone a new one would be made.
  if (!own_keyrings().can_join(state)) {
    if (view.tid == view.pid)
      log_message("{}: its session keyring ({}) cannot be joined: it has that of this program", view.who, state.name);
    return;
  }
  batch.must(SYS_keyctl, {KEYCTL_JOIN_SESSION_KEYRING, batch.text(state.name)});
}

}  // namespace stasis
