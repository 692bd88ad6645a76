// The explicit lists of kernel objects. Adding an object adds its files and one row here.
#include "objects/files/bpf_map.h"
#include "objects/files/eventfd.h"
#include "objects/files/eventpoll.h"
#include "objects/files/fanotify.h"
#include "objects/files/fifo.h"
#include "objects/files/file_kind.h"
#include "objects/files/inotify.h"
#include "objects/files/io_uring.h"
#include "objects/files/memfd.h"
#include "objects/files/pidfd.h"
#include "objects/files/pipe.h"
#include "objects/files/regular.h"
#include "objects/files/signalfd.h"
#include "objects/files/timerfd.h"
#include "objects/files/tty.h"
#include "objects/ipc/sem_undo.h"
#include "objects/task/alt_stack.h"
#include "objects/task/autogroup.h"
#include "objects/task/child_subreaper.h"
#include "objects/task/controlling_terminal.h"
#include "objects/task/core_dump_filter.h"
#include "objects/task/core_scheduling.h"
#include "objects/task/cpu_affinity.h"
#include "objects/task/credentials.h"
#include "objects/task/deny_write_execute.h"
#include "objects/task/dumpable.h"
#include "objects/task/future_locks.h"
#include "objects/task/instruction_faults.h"
#include "objects/task/interval_timers.h"
#include "objects/task/io_flusher.h"
#include "objects/task/io_priority.h"
#include "objects/task/landlock_domain.h"
#include "objects/task/login_uid.h"
#include "objects/task/machine_check_policy.h"
#include "objects/task/membarrier.h"
#include "objects/task/memory_merge.h"
#include "objects/task/numa_policy.h"
#include "objects/task/oom_score.h"
#include "objects/task/parent_death_signal.h"
#include "objects/task/pending_signals.h"
#include "objects/task/personality.h"
#include "objects/task/posix_timers.h"
#include "objects/task/refused_state.h"
#include "objects/task/registers.h"
#include "objects/task/resource_limits.h"
#include "objects/task/robust_list.h"
#include "objects/task/rseq.h"
#include "objects/task/scheduling.h"
#include "objects/task/seccomp.h"
#include "objects/task/security_label.h"
#include "objects/task/segment_descriptors.h"
#include "objects/task/session_keyring.h"
#include "objects/task/signal_actions.h"
#include "objects/task/signal_mask.h"
#include "objects/task/speculation.h"
#include "objects/task/task_state.h"
#include "objects/task/thp_disable.h"
#include "objects/task/thread_name.h"
#include "objects/task/tid_address.h"
#include "objects/task/timer_slack.h"
#include "objects/task/xstate_permission.h"
#include "objects/task_object.h"

namespace stasis {

const std::vector<TaskObject>& task_objects() {
  // One row, one line.
  // clang-format off
  static const std::vector<TaskObject> rows = {
      // ---- the process: settled by its leader, before the credentials of any thread ----
      task_object<TaskState>(),
      task_object<Personality>(),
      task_object<LoginUid>(),  // needs CAP_AUDIT_CONTROL once it is set (O-1)
      task_object<ThpDisable>(),
      task_object<FutureLocks>(),  // all mappings are there, and the limit of locked memory is not yet
      task_object<XstatePermission>(),  // before any thread has registers that need it
      task_object<Membarrier>(),
      task_object<PosixTimers>(),            // created with all threads there, armed last (O-55)
      task_object<IntervalTimers>(),         // armed last (O-55)
      task_object<SignalActions>(),          // before the queues: ignoring a signal empties its queue
      task_object<ProcessPendingSignals>(),  // all signals are blocked (O-54)
      task_object<ResourceLimits>(),         // from outside, when files and mappings are there (O-50)
      task_object<OomScore>(),               // from outside (O-52)
      task_object<ChildSubreaper>(),         // the tree stands (O-60)
      task_object<MemoryMerge>(),            // the mappings are there; needs CAP_SYS_RESOURCE
      task_object<CoreDumpFilter>(),         // from outside
      task_object<Autogroup>(),              // from outside
      task_object<ControllingTerminal>(),    // given before any child is born
      task_object<Dumpable>(),               // finished after all credentials (O-59)

      task_object<DenyWriteExecute>(),       // the last call: nothing is mapped after it

      // ---- each thread: settled by itself ----
      task_object<Rseq>(),          // looked at before the registers: it takes the thread out of a section (O-66)
      task_object<CpuRegisters>(),  // loaded by ptrace (O-63)
      task_object<SegmentDescriptors>(),  // before the registers that select them
      task_object<SignalMask>(),    // by ptrace, too
      task_object<RefusedState>(),
      task_object<CoreScheduling>(),  // noticed, not restored
      task_object<LandlockDomain>(),  // likewise
      task_object<TidAddress>(),  // no call sets these for another thread (O-49)
      task_object<RobustListHead>(),
      task_object<AltStack>(),
      task_object<SemUndo>(),  // when threads share what their leader has; its privileges are there
      task_object<ThreadName>(),
      task_object<Scheduling>(),            // from outside
      task_object<CpuAffinity>(),           // from outside
      task_object<IoPriority>(),            // from outside
      task_object<NumaPolicy>(),
      task_object<TimerSlack>(),  // a real-time policy takes it away
      task_object<MachineCheckPolicy>(),
      task_object<IoFlusher>(),  // needs CAP_SYS_RESOURCE
      task_object<InstructionFaults>(),
      task_object<Speculation>(),
      task_object<ThreadPendingSignals>(),  // all signals are blocked (O-54)
      task_object<SessionKeyring>(),        // joined with the rights of this program
      task_object<Credentials>(),           // privileges end here (O-57, O-58)
      task_object<SecurityLabel>(),         // written to a file that is opened with the final credentials
      task_object<ParentDeathSignal>(),     // a change of credentials clears it (O-59)
      task_object<Seccomp>(),               // strict mode, out of force as long as the task is traced (O-56)
  };
  // clang-format on
  return rows;
}

const std::vector<FileKind>& file_kinds() {
  static const std::vector<FileKind> rows = {
      file_kind<RegularFile>(),  // no two kinds claim the same file; the most frequent one is asked first
      file_kind<Pipe>(),        file_kind<Fifo>(),     file_kind<Memfd>(),   file_kind<Terminal>(),
      file_kind<EventFd>(),     file_kind<SignalFd>(), file_kind<TimerFd>(), file_kind<EventPoll>(),
      file_kind<PidFd>(),       file_kind<BpfMap>(),   file_kind<IoUring>(),
      file_kind<Inotify>(),  // the last two: what all others do in complete() is not to be seen
      file_kind<Fanotify>(),
  };
  return rows;
}

}  // namespace stasis
