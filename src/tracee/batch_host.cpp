#include "tracee/batch_host.h"

#include <fmt/format.h>
#include <sys/uio.h>

#include <cerrno>

#include "base/error.h"
#include "kernel/process.h"
#include "tracee/call_names.h"

namespace stasis {

std::string BatchHost::describe() const {
  return fmt::format("pid {} ({})", pid_, name_);
}

void throw_if_failed(const SyscallBatch& batch, const std::string& who) {
  const arch::BatchEntry* e = batch.failed();
  if (e == nullptr) return;
  throw Error(Reason::BATCH_CALL_FAILED, fmt::format("{} made in the task failed", batch.describe(*e)))
      .object(who)
      .error_number(static_cast<int>(-e->result));
}

void BatchHost::start(Tracee& thread, unsigned slot, const SyscallBatch& batch) {
  if (batch.size() > area_.batch_capacity(slot))
    throw Error(Reason::INTERNAL,
                fmt::format("a batch of {} bytes for a slot of {}", batch.size(), area_.batch_capacity(slot)))
        .object(describe());
  if (thread.keeps_mask() && batch.has_undo())
    throw Error(Reason::SECCOMP_REFUSES,
                "its seccomp filter does not allow the calls that would undo a change made in it")
        .object(describe())
        .remedy("allow rt_sigprocmask and tgkill in the filter");
  const uint64_t at = area_.batch(slot);
  arch::SlotHead head = thread.way_home(report_);
  head.undo_table = at + batch.undo_offset();
  head.heal_code = area_.heal_code(slot);
  batch.serialise(at, scratch_);

  const iovec local[2] = {{&head, sizeof head}, {scratch_.data(), scratch_.size()}};
  const iovec remote[2] = {{reinterpret_cast<void*>(area_.slot(slot)), sizeof head},
                           {reinterpret_cast<void*>(at), scratch_.size()}};
  const ssize_t want = static_cast<ssize_t>(sizeof head + scratch_.size());
  const ssize_t n = process_vm_writev(memory_of_, local, remote);
  if (n != want)
    throw Error(Reason::TRACEE_LOST, "its batch area cannot be written")
        .object(describe())
        .error_number(n < 0 ? static_cast<int>(-n) : EFAULT);
  thread.send_to(
      arch::batch_registers(thread.own_registers(), area_.loop(), at + batch.entries_offset(), area_.slot(slot)),
      report_);
  thread.start(report_);
}

void BatchHost::finish(Tracee& thread, unsigned slot, SyscallBatch& batch, StopWaiter& waiter) {
  thread.await_report(waiter, report_, area_.reported(), Clock::now() + kPatience);
  collect(slot, batch);
  throw_if_failed(batch, thread.describe());
}

bool BatchHost::interrupt(Tracee& thread, unsigned slot, SyscallBatch& batch, StopWaiter& waiter) {
  thread.interrupt();
  if (!thread.await_report_or_interrupt(waiter, report_, area_.reported(), Clock::now() + kPatience)) return false;
  collect(slot, batch);
  return true;
}

void BatchHost::collect(unsigned slot, SyscallBatch& batch) {
  const size_t skip = batch.entries_offset();
  scratch_.resize(batch.size() - skip);
  const int err = process_vm_read_all(memory_of_, area_.batch(slot) + skip, scratch_.data(), scratch_.size());
  if (err != 0) throw Error(Reason::TRACEE_LOST, "its batch area cannot be read").object(describe()).error_number(-err);
  batch.take_results(scratch_);
}

void BatchHost::run(Tracee& thread, unsigned slot, SyscallBatch& batch, StopWaiter& waiter) {
  start(thread, slot, batch);
  finish(thread, slot, batch, waiter);
}

}  // namespace stasis
