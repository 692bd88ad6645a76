#include "restore/foreground.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "base/interrupt.h"

namespace stasis {

Foreground::Foreground(const RestoreOptions& options, pid_t root, pid_t group) : root_(root), group_(group) {
  sigemptyset(&signals_);
  if (options.detached) return;
  sigaddset(&signals_, SIGCHLD);
  for (int signal : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction action {};
    sigaction(signal, nullptr, &action);
    // An ignored signal would become pending once it is blocked.
    if (action.sa_handler != SIG_IGN) sigaddset(&signals_, signal);
  }
  if (options.shell_job) terminal_.reset(open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY));
  if (terminal_) {
    sigaddset(&signals_, SIGTSTP);
    sigaddset(&signals_, SIGCONT);
  }
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
  if (!terminal_ || group_ == 0 || tcgetpgrp(terminal_.get()) != getpgrp()) return;
  set_foreground_group(group_);
  handed_over_ = true;
}

void Foreground::take_terminal_back() {
  if (!handed_over_) return;
  set_foreground_group(getpgrp());
  handed_over_ = false;
}

void Foreground::stop_like_root() {
  take_terminal_back();
  // The shell sees its job stop. Its SIGCONT is told by take_signal().
  raise(SIGSTOP);
}

void Foreground::take_signal() {
  siginfo_t info{};
  const int signal = sigwaitinfo(&signals_, &info);
  if (signal < 0 || signal == SIGCHLD) return;
  if (signal == SIGCONT) {
    hand_terminal_over();
    kill(group_ != 0 ? -group_ : root_, SIGCONT);
    return;
  }
  // The terminal signals a whole group: a root in ours has it already.
  if (info.si_code == SI_KERNEL && group_ == 0) return;
  kill(signal == SIGTSTP && group_ != 0 ? -group_ : root_, signal);
}

int Foreground::wait() {
  sigprocmask(SIG_BLOCK, &signals_, nullptr);
  // One that came before.
  if (const int signal = take_interrupt(); signal != 0) kill(root_, signal);
  for (;;) {
    int status = 0;
    const pid_t got = waitpid(-1, &status, WUNTRACED | WNOHANG);
    if (got == 0) {
      take_signal();
    } else if (got > 0 && got != root_) {
      // An orphan that came to the first process of a pid namespace.
    } else if (got == root_ && WIFSTOPPED(status)) {
      // SIGSTOP is no job control: who sent it continues the root, and knows nothing of this program.
      if (terminal_ && WSTOPSIG(status) != SIGSTOP) stop_like_root();
    } else {
      take_terminal_back();
      if (got != root_) return 1;
      return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }
  }
}

}  // namespace stasis
