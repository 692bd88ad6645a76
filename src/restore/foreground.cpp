#include "restore/foreground.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>

#include "base/interrupt.h"

namespace stasis {

Foreground::Foreground(const RestoreOptions& options, pid_t root, pid_t group) : root_(root), group_(group) {
  if (!options.detached && options.shell_job && group != 0) terminal_.reset(open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY));
}

void Foreground::set_foreground_group(pid_t group) const {
  // A background group that sets the foreground group is stopped by SIGTTOU unless it blocks it (tcsetpgrp(3)).
  sigset_t ttou, old;
  sigemptyset(&ttou);
  sigaddset(&ttou, SIGTTOU);
  sigprocmask(SIG_BLOCK, &ttou, &old);
  tcsetpgrp(terminal_.get(), group);
  sigprocmask(SIG_SETMASK, &old, nullptr);
}

void Foreground::hand_terminal_over() {
  // Only who has the terminal can give it.
  if (!terminal_ || tcgetpgrp(terminal_.get()) != getpgrp()) return;
  set_foreground_group(group_);
  handed_over_ = true;
}

int Foreground::wait() {
  for (;;) {
    int status = 0;
    const pid_t got = waitpid(root_, &status, WUNTRACED);
    if (got < 0 && errno == EINTR) {
      if (const int signal = take_interrupt(); signal != 0) kill(root_, signal);
      continue;
    }
    if (got == root_ && WIFSTOPPED(status)) {
      if (!handed_over_) continue;
      set_foreground_group(getpgrp());
      raise(SIGSTOP);
      set_foreground_group(group_);
      kill(-group_, SIGCONT);
      continue;
    }
    if (handed_over_) set_foreground_group(getpgrp());
    if (got != root_) return 1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
}

}  // namespace stasis
