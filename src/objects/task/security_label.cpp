#include "objects/task/security_label.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <optional>

#include "base/error.h"

namespace stasis {

namespace {

constexpr const char* kAppArmorFile = "attr/apparmor/current";  // Linux 5.8
constexpr const char* kAnyFile = "attr/current";
constexpr std::string_view kUnconfined = "unconfined";
constexpr size_t kLongestProfile = 4000;  // it is written as a part of a page

// Nothing if no module answers (EINVAL), or none is built in (ENOENT).
std::optional<std::string> read_label(ProcDir& task, const char* file) {
  try {
    const auto text = task.try_read(file);
    if (!text) return std::nullopt;
    std::string label(*text);
    while (!label.empty() && (label.back() == '\n' || label.back() == '\0')) label.pop_back();
    return label;
  } catch (const Error& e) {
    if (e.reason() == Reason::TASK_VANISHED) throw;
    return std::nullopt;
  }
}

// What this program has. It does not change during a run.
struct OwnLabel {
  bool apparmor = false;
  std::optional<std::string> label;
  std::string profile;
};
const OwnLabel& own_label() {
  static const OwnLabel found = [] {
    ProcDir self(getpid());
    OwnLabel out;
    out.label = read_label(self, kAppArmorFile);
    out.apparmor = out.label.has_value();
    if (out.apparmor)
      out.profile = apparmor_profile(*out.label);
    else
      out.label = read_label(self, kAnyFile);
    return out;
  }();
  return found;
}

// False if it is known that the kernel has no such profile.
bool may_exist(const std::string& profile) {
  // Of a namespace, or of several at once: the kernel finds out.
  if (profile.starts_with(':') || profile.find("//&") != std::string::npos) return true;
  static const std::optional<std::string> all = [] -> std::optional<std::string> {
    const Fd file(::open("/sys/kernel/security/apparmor/profiles", O_RDONLY | O_CLOEXEC));
    if (!file) return std::nullopt;
    std::string text;
    char part[4096];
    for (ssize_t n; (n = ::read(file.get(), part, sizeof part)) > 0;) text.append(part, static_cast<size_t>(n));
    return "\n" + text;
  }();
  return !all || all->find("\n" + profile + " (") != std::string::npos;
}

// The profile that the user or the image names.
std::string wanted_profile(const SecurityLabel::State& state, const SettleView& view) {
  constexpr std::string_view kPrefix = "apparmor:";
  const std::string& option = view.options.lsm_profile;
  if (state.profile.empty() || option.empty()) return state.profile;
  if (!option.starts_with(kPrefix))
    throw Error(Reason::BAD_OPTION, fmt::format("--lsm-profile {} is not of AppArmor, as the saved label is", option))
        .remedy("write apparmor:NAME");
  return option.substr(kPrefix.size());
}

}  // namespace

pb::lsmtype security_module() {
  return own_label().apparmor                                                     ? pb::APPARMOR
         : own_label().label && own_label().label->find(':') != std::string::npos ? pb::SELINUX
                                                                                  : pb::NO_LSM;
}

std::string apparmor_profile(std::string_view label) {
  if (label == kUnconfined) return {};
  if (label.ends_with(')')) {
    const size_t mode = label.rfind(" (");
    if (mode != std::string_view::npos) label = label.substr(0, mode);
  }
  return std::string(label);
}

void SecurityLabel::prepare(const ProcStatus&) {
  own_label();
}

void SecurityLabel::look(const LookView& view, State& state) {
  if (!own_label().label) return;  // what no module answers for this program it answers for no task
  const char* const file = own_label().apparmor ? kAppArmorFile : kAnyFile;
  std::optional<std::string> label;
  if (view.tid == view.proc.pid()) {
    label = read_label(view.proc, file);
  } else {
    ProcDir thread = view.proc.thread(view.tid);
    label = read_label(thread, file);
  }
  if (own_label().apparmor) {
    state.profile = apparmor_profile(label.value_or(std::string(kUnconfined)));
    return;
  }
  if (label != own_label().label)
    throw Error(Reason::UNSUPPORTED_STATE, fmt::format("a security module confines it as \"{}\"", label.value_or("")))
        .remedy("run it unconfined, or run this program under the same label");
}

void SecurityLabel::encode(const State& state, pb::core_entry& core) {
  if (!state.profile.empty()) core.mutable_thread_core()->mutable_creds()->set_lsm_profile(state.profile);
}

void SecurityLabel::decode(const pb::core_entry& core, State& state) {
  const pb::creds_entry& creds = core.thread_core().creds();
  state.profile = creds.lsm_profile();
  if (!creds.apparmor_data().empty())
    throw Error(Reason::IMAGE_UNSUPPORTED,
                "the saved task belongs to an AppArmor namespace whose policy is in the images");
  if (state.profile.size() > kLongestProfile ||
      state.profile.find_first_of(std::string_view("\0\n", 2)) != std::string::npos)
    throw Error(Reason::IMAGE_CORRUPT, "the security label makes no sense");
}

void SecurityLabel::settle(const State& state, const SettleView& view, SyscallBatch& batch) {
  if (!own_label().apparmor) {
    if (state.profile.empty() || state.profile == own_label().label) return;
    throw Error(Reason::FEATURE_MISSING,
                fmt::format("the saved task was confined by a security module as \"{}\", which this machine has not",
                            state.profile))
        .object(view.who)
        .remedy("restore it on a kernel with that module enabled");
  }
  const std::string profile = wanted_profile(state, view);
  if (profile == own_label().profile) return;
  if (!profile.empty() && !may_exist(profile))
    throw Error(Reason::FILE_MISSING, fmt::format("this machine has no AppArmor profile \"{}\"", profile))
        .object(view.who)
        .remedy("load it (apparmor_parser -r FILE), or name another one by --lsm-profile apparmor:NAME");
  const std::string command = fmt::format("changeprofile {}", profile.empty() ? std::string(kUnconfined) : profile);
  const auto opened =
      batch.must(SYS_openat, {AT_FDCWD, batch.text("/proc/thread-self/attr/apparmor/current"), O_WRONLY | O_CLOEXEC});
  batch.must(SYS_write, {opened, batch.text(command), command.size()});
  batch.must(SYS_close, {opened});
}

}  // namespace stasis
