#include "restore/pid_namespace.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "arch/arch.h"
#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "kernel/proc_text.h"
#include "kernel/process.h"
#include "kernel/uapi.h"

namespace stasis {

std::optional<int> PidNamespace::split() {
  int ends[2];
  check(pipe2(ends, O_CLOEXEC), "cannot make a pipe");
  Fd done_read(ends[0]), done_write(ends[1]);
  // What is in the buffers would be written twice.
  log::flush();
  std::fflush(nullptr);
  uapi::clone_args args{.flags = CLONE_NEWPID, .exit_signal = SIGCHLD};
  const long inside = clone3(args);
  if (inside == -EPERM)
    throw Error(Reason::NO_PRIVILEGE, "a pid namespace cannot be made").error_number(EPERM).remedy("run as root");
  fail_if(inside, "cannot make a pid namespace", Reason::RESTORE_CALL_FAILED);
  if (inside != 0) {
    done_write.reset();
    return wait_outside(static_cast<pid_t>(inside), done_read.get());
  }
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  done_read.reset();
  // The other one may have gone before that.
  pollfd reader{done_write.get(), POLLOUT, 0};
  if (poll(&reader, 1, 0) != 1 || (reader.revents & POLLERR) != 0) _exit(1);
  // Signals of the terminal go to the part outside alone, which passes them on.
  setsid();
  done_ = std::move(done_write);
  return std::nullopt;
}

int PidNamespace::wait_outside(pid_t inside, int done_fd) {
  // Outside of ppoll() they are blocked, so that none comes between a look and the wait.
  sigset_t signals, before;
  sigemptyset(&signals);
  for (int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&signals, signal);
  sigprocmask(SIG_BLOCK, &signals, &before);
  for (pollfd done{done_fd, POLLIN, 0}; ppoll(&done, 1, nullptr, &before) <= 0;)
    if (const int signal = take_interrupt(); signal != 0) kill(inside, signal);
  char byte;
  if (read(done_fd, &byte, 1) == 1) {
    // The end follows when it has become init and holds nothing of the caller any more.
    while (read(done_fd, &byte, 1) > 0) {
    }
    return 0;
  }
  int status = 0;
  check(waitpid(inside, &status, 0), "cannot wait for the first process of the new pid namespace");
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void PidNamespace::become_init() {
  const int program = memfd_create("stasis-init", MFD_CLOEXEC | uapi::mfd_exec);
  const auto text = arch::init_executable();
  if (program < 0 || write(program, text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    log_warning("the init of the new pid namespace stays this program: {}", errno_text(errno));
  log::flush();
  [[maybe_unused]] const ssize_t told = write(done_.get(), "", 1);
  // Nothing of the caller is held.
  if (chdir("/") != 0) log_debug("init stays in the work directory");
  constexpr int kProgram = 0;
  dup3(program, kProgram, O_CLOEXEC);
  close_range(kProgram + 1, ~0u, 0);
  char name[] = "stasis-init";
  char* const argv[] = {name, nullptr};
  char* const envp[] = {nullptr};
  execveat(kProgram, "", argv, envp, AT_EMPTY_PATH);
  close(kProgram);
  for (;;)
    if (waitpid(-1, nullptr, __WALL) < 0 && errno == ECHILD) _exit(0);
}

void await_last_task() {
  // The wait for the root has blocked them, to take them one by one.
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  while (waitpid(-1, nullptr, __WALL) >= 0 || (errno == EINTR && take_interrupt() == 0)) {
  }
}

pid_t pid_outside(pid_t pid) {
  const Fd pidfd(static_cast<int>(fail_if(pidfd_open(pid), "cannot open a pidfd")));
  const Fd info(open(fmt::format("/proc/self/fdinfo/{}", pidfd.get()).c_str(), O_RDONLY | O_CLOEXEC));
  char text[512];
  const ssize_t bytes = info ? read(info.get(), text, sizeof text) : -1;
  std::string_view rest(text, bytes > 0 ? static_cast<size_t>(bytes) : 0);
  while (!rest.empty()) {
    const std::string_view line = proc_text::take_line(rest);
    if (line.starts_with("Pid:"))
      if (const auto number = proc_text::whole_number<pid_t>(line.substr(4)); number && *number > 0) return *number;
  }
  throw Error(Reason::PIDFILE, "the pid outside of the new pid namespace cannot be found: is /proc mounted?")
      .object(fmt::format("pid {}", pid));
}

}  // namespace stasis
