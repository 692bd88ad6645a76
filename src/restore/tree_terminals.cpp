// Controlling terminals. Only the leader of a session can take one, only itself (O-19), and only processes that it
// forks afterwards have it: so it does it as soon as it is a leader.
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <unordered_map>

#include "base/error.h"
#include "base/log.h"
#include "objects/task/controlling_terminal.h"
#include "restore/tree.h"

namespace stasis {

// In an empty table; `group` is what the request points to.
void PuppetTree::call_with_terminal(Puppet& puppet, int fd, uint64_t request, const pid_t* group) {
  SyscallBatch batch;
  channels_.send(0, {&fd, 1});
  channels_.receive(batch, 0, 1);
  if (group != nullptr)
    batch.must(SYS_ioctl, {0, request, batch.object(*group)});
  else
    batch.must(SYS_ioctl, {0, request, 0});
  batch.must(SYS_close, {0});
  puppet.run(batch, waiter_);
}

void PuppetTree::take_terminal(int node) {
  const PlannedProcess* p = process_of(node);
  if (p == nullptr || p->zombie || p->states.get<ControllingTerminal>().device == 0u) return;
  const auto terminal = files_.session_terminal(p->pid);
  if (!terminal) return;
  run_queued();
  come_to_rest(node);
  try {
    call_with_terminal(puppet_at(node), terminal->fd, TIOCSCTTY);
  } catch (Error& e) {
    if (e.reason() != Reason::BATCH_CALL_FAILED || e.error_number() != EPERM) throw;
    throw Error(Reason::TERMINAL_MISSING, "the terminal that is given controls another session already")
        .object(p->describe())
        .error_number(EPERM)
        .remedy("give one that nobody uses, as the slave of a new pseudo terminal");
  }
}

void PuppetTree::settle_terminals() {
  std::unordered_map<pid_t, SessionTerminal> terminals;
  for (const auto& p : plan_.processes) {
    if (p->zombie || p->sid != p->pid || p->states.get<ControllingTerminal>().device == 0u) continue;
    const auto terminal = files_.session_terminal(p->pid);
    if (!terminal) continue;
    terminals.emplace(p->sid, *terminal);
    if (terminal->foreground <= 0 || terminal->foreground == p->pgid) continue;
    const bool exists =
        std::ranges::any_of(plan_.processes, [&](const auto& other) { return other->pgid == terminal->foreground; });
    if (exists) {
      call_with_terminal(puppet(*p), terminal->fd, TIOCSPGRP, &terminal->foreground);
    } else {
      // Its shell has not taken the terminal back yet; nobody can be in that group again.
      log_info("{}: the foreground group {} of its terminal is gone", p->describe(), terminal->foreground);
    }
  }
  // A process can give up what it has from its parent, but not get it again.
  for (const auto& p : plan_.processes) {
    const auto terminal = terminals.find(p->sid);
    if (p->zombie || p->sid == p->pid || terminal == terminals.end()) continue;
    if (p->states.get<ControllingTerminal>().device == 0u)
      call_with_terminal(puppet(*p), terminal->second.fd, TIOCNOTTY);
  }
}

}  // namespace stasis
