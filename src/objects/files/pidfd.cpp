#include "objects/files/pidfd.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/error.h"
#include "proto/pidfd.pb.h"

namespace stasis {
namespace {

constexpr uint32_t open_flags = O_NONBLOCK | O_EXCL;  // PIDFD_NONBLOCK, PIDFD_THREAD

// What PIDFD_GET_INFO fills in (Linux 6.13, linux/pidfd.h); the exit code since 6.15.
struct PidfdInfo {
  uint64_t mask = 0;
  uint64_t others[6]{};
  uint32_t more[1]{};
  int32_t exit_code = 0;
};
static_assert(sizeof(PidfdInfo) == 64);
constexpr unsigned long get_info = 0xc040ff0b;  // _IOWR(0xff, 11, 64 bytes)
constexpr uint64_t info_exit = 8;

std::string what(const PidFd::State& state) {
  return state.pid > 0 ? fmt::format("pidfd of pid {} (file {})", state.pid, state.id)
                       : fmt::format("pidfd of a dead process (file {})", state.id);
}

std::optional<int> exit_code_of(int fd) {
  PidfdInfo info{.mask = info_exit};
  if (::ioctl(fd, get_info, &info) != 0 || (info.mask & info_exit) == 0) return std::nullopt;
  return info.exit_code;
}

// The child of a fork: plain system calls only.
[[noreturn]] void end_as(int exit_code, int go) {
  ::close_range(0, static_cast<unsigned>(go) - 1, 0);
  ::close_range(static_cast<unsigned>(go) + 1, ~0u, 0);
  char byte;
  while (::read(go, &byte, 1) < 0 && errno == EINTR) {
  }
  if (WIFSIGNALED(exit_code)) {
    const rlimit no_core{};
    ::setrlimit(RLIMIT_CORE, &no_core);
    ::signal(WTERMSIG(exit_code), SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    ::kill(::getpid(), WTERMSIG(exit_code));
  }
  ::_exit(WEXITSTATUS(exit_code));
}

void start(PidFd::Victim& victim, int exit_code) {
  int ends[2];
  check(::pipe2(ends, O_CLOEXEC), "cannot make a pipe", Reason::RESTORE_CALL_FAILED);
  Fd reader(ends[0]);
  victim.go = Fd(ends[1]);
  victim.pid = check(::_Fork(), "cannot make a process for a pidfd", Reason::RESTORE_CALL_FAILED);
  if (victim.pid == 0) end_as(exit_code, ends[0]);
}

}  // namespace

PidFd::Victim::~Victim() {
  go.reset();
  while (pid > 0 && ::waitpid(pid, nullptr, __WALL) < 0 && errno == EINTR) {
  }
}

bool PidFd::match(const FileView& view) {
  return view.link == "anon_inode:[pidfd]";
}

void PidFd::dump(const FileView& view, DumpFiles& files, Shared&, State& state) {
  dump_open_file(view, files, state);
  state.inode = static_cast<uint32_t>(view.st.st_ino);
  const std::string info = own_fdinfo(view.fd);
  const auto pid = fdinfo_number(info, "Pid");
  if (!pid) {  // "-1"
    state.pid = -1;
    state.exit_code = exit_code_of(view.fd);
    return;
  }
  const auto outer = static_cast<pid_t>(*pid);
  if (!files.tree_pids.contains(outer))
    throw Error(Reason::UNSUPPORTED_FILE, fmt::format("it refers to pid {}, which is no process of the tree", outer))
        .object(view.who())
        .remedy("dump a tree that contains it; pidfds of single threads cannot be saved");
  state.pid = files.inner_pid(outer);
}

void PidFd::encode(const State& state, pb::file_entry& out) {
  pb::pidfd_entry& entry = *out.mutable_pidfd();
  encode_open_file(state, type, out, entry);
  entry.set_ino(state.inode);
  entry.set_nspid(state.pid);
}

void PidFd::decode(const pb::file_entry& in, State& state) {
  const pb::pidfd_entry& entry = in.pidfd();
  decode_open_file(entry, state);
  state.inode = entry.ino();
  state.pid = entry.nspid() > 0 ? entry.nspid() : -1;
}

void PidFd::encode_extension(const State& state, pb::extension_file& out) {
  if (state.exit_code) out.set_pidfd_exit_code(static_cast<uint32_t>(*state.exit_code));
}

void PidFd::decode_extension(const pb::extension_file& in, State& state) {
  if (in.has_pidfd_exit_code()) state.exit_code = static_cast<int>(in.pidfd_exit_code());
}

Fd PidFd::create(const State& state, RestoreFiles& files, Shared& shared) {
  pid_t pid = files.outer_pid(state.pid);
  if (state.pid < 0) {
    Victim& victim = shared.victims[state.inode];
    if (victim.pid < 0) start(victim, state.exit_code.value_or(0));
    pid = victim.pid;
  }
  const long fd = ::syscall(SYS_pidfd_open, pid, state.flags & open_flags);
  if (fd < 0) throw Error(Reason::RESTORE_CALL_FAILED, "cannot make a pidfd").object(what(state)).error_number(errno);
  Fd made(static_cast<int>(fd));
  return made;
}

void PidFd::finish(const State& state, int fd, RestoreFiles& files, Shared&) {
  restore_file_owner(state.owner, fd, files, what(state));
}

void PidFd::complete(RestoreFiles&, Shared& shared) {
  shared.victims.clear();
}

}  // namespace stasis
