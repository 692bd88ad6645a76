#include "base/interrupt.h"

#include <fmt/format.h>
#include <signal.h>

#include <cstring>

#include "base/error.h"

namespace stasis {

namespace {

volatile sig_atomic_t received = 0;
volatile sig_atomic_t ignored = 0;

void on_signal(int signal) {
  received = signal;
}

}  // namespace

void install_interrupt_handlers() {
  struct sigaction action {};
  action.sa_handler = on_signal;  // no SA_RESTART: a wait is to notice
  sigemptyset(&action.sa_mask);
  for (int signal : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction old {};
    sigaction(signal, nullptr, &old);
    // What the caller chose to ignore (nohup) stays ignored.
    if (old.sa_handler != SIG_IGN) sigaction(signal, &action, nullptr);
  }
  // The end of a child would go unseen if the caller ignored it: then the kernel collects it (waitpid(2)).
  signal(SIGCHLD, SIG_DFL);
}

bool interrupted() noexcept {
  return received != 0 && ignored == 0;
}

void check_interrupted() {
  if (interrupted())
    throw Error(Reason::INTERRUPTED, fmt::format("interrupted by SIG{}", sigabbrev_np(received)))
        .remedy("start it again; nothing was changed");
}

int take_interrupt() noexcept {
  const int signal = received;
  received = 0;
  return signal;
}

void ignore_interrupts() {
  ignored = 1;
}

}  // namespace stasis
