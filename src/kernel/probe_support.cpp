#include "kernel/probe_support.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "base/error.h"
#include "kernel/uapi.h"

namespace stasis::probes {

FeatureResult by_result(long result, std::string_view what, std::string_view privilege) {
  if (result >= 0) return supported();
  const int error_number = static_cast<int>(-result);
  if (!privilege.empty() && (error_number == EPERM || error_number == EACCES))
    return missing(fmt::format("cannot tell without {}: {}", privilege, errno_text(error_number)));
  return missing(fmt::format("{}: {}", what, errno_text(error_number)));
}

FeatureResult by_errno(long result, std::string_view what, std::string_view privilege) {
  return by_result(result < 0 ? -errno : result, what, privilege);
}

namespace {

constexpr unsigned kLongestProbeSeconds = 5;

// A helper must not outlive its parent, hang, or leave a core file.
void become_helper(pid_t parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(1);
  const rlimit no_core{0, 0};
  ::setrlimit(RLIMIT_CORE, &no_core);
  struct sigaction defaults {};
  defaults.sa_handler = SIG_DFL;
  for (const int signal : {SIGALRM, SIGCHLD, SIGSEGV, SIGSYS, SIGTRAP, SIGPIPE})
    ::sigaction(signal, &defaults, nullptr);
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::alarm(kLongestProbeSeconds);
}

pid_t wait_for(pid_t pid, int* status, int options = 0) {
  pid_t got;
  do got = ::waitpid(pid, status, options);
  while (got < 0 && errno == EINTR);
  return got;
}

std::string read_all(int fd) {
  std::string out;
  char chunk[512];
  for (;;) {
    const ssize_t got = ::read(fd, chunk, sizeof chunk);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return out;
    out.append(chunk, static_cast<size_t>(got));
  }
}

[[noreturn]] void answer(int fd, const std::function<FeatureResult()>& body) {
  FeatureResult result;
  try {
    result = body();
  } catch (const std::exception& error) {
    result = missing(error.what());
  }
  // One character for the verdict, then the text; below PIPE_BUF it arrives in one piece.
  const std::string message = (result.supported ? '+' : '-') + result.why;
  const ssize_t put = ::write(fd, message.data(), message.size());
  ::_exit(put == static_cast<ssize_t>(message.size()) ? 0 : 1);
}

}  // namespace

FeatureResult in_child(const std::function<FeatureResult()>& body) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) < 0) return by_errno(-1, "cannot make a pipe for the probe");
  Fd reader(ends[0]);
  Fd writer(ends[1]);
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child < 0) return by_errno(-1, "cannot fork for the probe");
  if (child == 0) {
    become_helper(parent);
    reader.reset();
    answer(writer.get(), body);
  }
  writer.reset();
  const std::string message = read_all(reader.get());
  int status = 0;
  wait_for(child, &status);
  if (!message.empty()) return {message.front() == '+', message.substr(1)};
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM) return missing("the probe did not end in time");
  return missing(fmt::format("the probe was ended by signal {}", WIFSIGNALED(status) ? WTERMSIG(status) : 0));
}

FeatureResult enter_private_mounts() {
  if (::unshare(CLONE_NEWNS) < 0) return by_errno(-1, "cannot make a mount namespace", "CAP_SYS_ADMIN");
  return by_errno(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), "cannot make mounts private",
                  "CAP_SYS_ADMIN");
}

FeatureResult enter_private_network() {
  return by_errno(::unshare(CLONE_NEWNET), "cannot make a network namespace", "CAP_SYS_ADMIN");
}

TracedChild::TracedChild(unsigned seize_options, int (*setup)()) : state_(start(seize_options, setup)) {}

FeatureResult TracedChild::start(unsigned seize_options, int (*setup)()) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) < 0) return by_errno(-1, "cannot make a pipe for the probe");
  Fd reader(ends[0]);
  Fd writer(ends[1]);
  const pid_t parent = ::getpid();
  pid_ = ::fork();
  if (pid_ < 0) return by_errno(-1, "cannot fork for the probe");
  if (pid_ == 0) {
    become_helper(parent);
    if (setup != nullptr && setup() != 0) ::_exit(1);
    if (::write(writer.get(), "r", 1) != 1) ::_exit(1);
    for (;;) ::pause();
  }
  writer.reset();
  char ready = 0;
  if (::read(reader.get(), &ready, 1) != 1) return missing("the helper could not be set up");
  const long seized = request(uapi::ptrace_seize, 0, reinterpret_cast<const void*>(uint64_t{seize_options}));
  if (seized < 0)
    return by_result(seized, "cannot seize a helper",
                     (seize_options & uapi::ptrace_o_suspend_seccomp) != 0
                         ? "CAP_SYS_ADMIN in the initial user namespace"
                         : "CAP_SYS_PTRACE");
  const long interrupted = request(uapi::ptrace_interrupt, 0, nullptr);
  if (interrupted < 0) return by_result(interrupted, "cannot interrupt a helper");
  int status = 0;
  if (wait_for(pid_, &status, __WALL) != pid_ || !WIFSTOPPED(status)) return missing("the helper did not stop");
  return supported();
}

TracedChild::~TracedChild() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  int status = 0;
  while (wait_for(pid_, &status, __WALL) == pid_ && !WIFEXITED(status) && !WIFSIGNALED(status)) {
  }
}

long TracedChild::request(unsigned request, unsigned long address, const void* data) const noexcept {
  const long result = ::syscall(SYS_ptrace, static_cast<long>(request), pid_, address, data);
  return result < 0 ? -errno : result;
}

}  // namespace stasis::probes
