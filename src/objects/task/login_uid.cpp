#include "objects/task/login_uid.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"

namespace stasis {

namespace {

std::optional<uint32_t> read_uid(ProcDir& proc) {
  const auto text = proc.try_read("loginuid");
  if (!text) return std::nullopt;
  return parse_loginuid(*text);
}

// New tasks inherit it.
std::optional<uint32_t> own_uid() {
  static const std::optional<uint32_t> uid = [] {
    ProcDir self(getpid());
    return read_uid(self);
  }();
  return uid;
}

int lowest_free_fd(const ProcDir& proc) {
  int free = 0;
  for (int fd : proc.fds()) {
    if (fd != free) break;
    ++free;
  }
  return free;
}

}  // namespace

void LoginUid::look(const LookView& view, State& state) {
  state.uid = read_uid(view.proc);
}

void LoginUid::encode(const State& state, pb::core_entry& core) {
  if (state.uid) core.mutable_tc()->set_loginuid(*state.uid);
}

void LoginUid::decode(const pb::core_entry& core, State& state) {
  state.uid.reset();
  if (core.tc().has_loginuid()) state.uid = core.tc().loginuid();
}

void LoginUid::settle(const State& state, const SettleView& view, SyscallBatch& batch) {
  if (!state.uid || state.uid == own_uid()) return;
  if (!own_uid()) {
    log_info("{}: this kernel has no audit, the login uid {} is left out", view.who, *state.uid);
    return;
  }
  // A task's login uid is taken from the task alone (proc_loginuid_write in fs/proc/base.c).
  const std::string text = fmt::format("{}", *state.uid);
  const auto fd = batch.must(SYS_openat, {AT_FDCWD, batch.text("/proc/self/loginuid"), O_WRONLY | O_CLOEXEC});
  batch.must(SYS_write, {fd, batch.text(text), text.size()});
  batch.must(SYS_close, {lowest_free_fd(ProcDir(view.pid))});
}

}  // namespace stasis
