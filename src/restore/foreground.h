// A restored tree in the foreground: it has the caller's terminal, signals reach it, and its end is ours.
#pragma once

#include <signal.h>
#include <sys/types.h>

#include "base/fd.h"
#include "base/restore_options.h"

namespace stasis {

class Foreground {
 public:
  // `group`: the process group of the root, 0 if it is in the caller's own. A detached restore has no use for the
  // methods.
  Foreground(const RestoreOptions& options, pid_t root, pid_t group);

  // Makes the group the terminal's foreground group, so that it can read and gets Ctrl-C. Only if this program is in
  // the foreground itself.
  void hand_terminal_over();
  // Waits for the root and passes signals on. When job control stops it (Ctrl-Z) this program stops too, and continues
  // it when it is continued. Returns the exit status, or 128 + signal.
  int wait();

 private:
  void set_foreground_group(pid_t group) const;
  void take_terminal_back();
  void take_signal();
  void stop_like_root();

  pid_t root_;
  pid_t group_;
  Fd terminal_;
  sigset_t signals_;
  bool handed_over_ = false;
};

}  // namespace stasis
