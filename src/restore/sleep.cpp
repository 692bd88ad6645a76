#include "restore/sleep.h"

#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "kernel/process.h"

namespace stasis {

namespace {

// Index of the argument that says where the remaining time was written; -1 for calls that tell nobody.
int remaining_argument(uint64_t number) {
  switch (number) {
    case SYS_nanosleep:
      return 1;
    case SYS_clock_nanosleep:
      return 3;
    default:
      return -1;
  }
}

}  // namespace

uint64_t restart_sleep(Puppet& puppet, Tracee& thread, unsigned slot, const SleepRestart& sleep, StopWaiter& waiter) {
  // Without a restart block this call returns EINTR: all that is left when nobody knows what slept.
  if (!sleep.known) return SYS_restart_syscall;
  const int where = remaining_argument(sleep.number);
  timespec left{};
  if (where < 0 || sleep.args[where] == 0 ||
      process_vm_read_all(puppet.pid(), sleep.args[where], &left, sizeof left) != 0)
    return sleep.number;

  SyscallBatch batch;
  const BatchData request = batch.object(left);
  if (sleep.number == SYS_nanosleep)
    batch.call(SYS_nanosleep, {request, sleep.args[1]});
  else
    batch.call(SYS_clock_nanosleep, {sleep.args[0], sleep.args[1], request, sleep.args[3]});
  puppet.host().start(thread, slot, batch);
  // The first tries may come before it sleeps.
  for (int tries = 0; tries < 1000; ++tries) {
    if (tries > 2) usleep(20);
    thread.interrupt();
    if (!thread.await_stop(waiter, Clock::now() + BatchHost::kPatience)) break;
    const arch::Registers now = thread.current_registers();
    if (arch::interrupted_call(now) == arch::Interrupted::restart_block) return SYS_restart_syscall;
    // Over already. The next sleep would be short too.
    if (arch::instruction_pointer(now) == puppet.host().area().reported()) return sleep.number;
    thread.resume();
  }
  log_debug("{}: its sleep was not restarted", thread.describe());
  return sleep.number;
}

}  // namespace stasis
