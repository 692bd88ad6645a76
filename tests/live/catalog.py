"""Which subject goes through which modes. One row is one kind of state; CMake makes one test of each row and mode."""
import dataclasses

STANDARD = ("none", "restore", "running", "cycles")


@dataclasses.dataclass(frozen=True)
class Entry:
    name: str
    modes: tuple = STANDARD
    gap_s: float = 0.0        # time between dump and restore
    compares: bool = True     # False: the tree changes all the time, /proc cannot be compared
    replays: bool = True      # False: its files move on during a live dump, so they do not fit its images
    reason: str | None = None  # what a refusal has to say (regular expression)
    timeout_s: int = 60
    options: tuple = ()       # of dump and restore


def _entry(name, **keywords):
    return Entry(name, **keywords)


def _refused(name, reason, **keywords):
    return Entry(name, modes=("none", "refused"), reason=reason, **keywords)


def _honest(name):
    """Either refused with nothing lost, or saved and restored as it should be: never accepted and then lost."""
    return Entry(name, modes=("none", "honest"))


STOPPABLE = STANDARD + ("stopped",)
ENTRIES = (
    _entry("counter", modes=STOPPABLE + ("shell_job",)),
    # memory, vma-kinds
    _entry("mem_anon"), _entry("mem_private_file"), _entry("mem_shared_file"), _entry("mem_shared_anon"), _entry("heap"),
    _entry("stack_growth"), _entry("cow"), _entry("cow_protected"), _entry("vma_kinds"),
    _entry("vma_matrix"), _entry("grows_down"), _entry("guards"), _entry("mem_locks"), _entry("mem_lock_all"), _entry("mseal"),
    _entry("mem_sparse"), _entry("mem_mappings", timeout_s=120), _entry("droppable"), _entry("once_writable"), _entry("snapshot_writer", compares=False),
    # memory objects
    _entry("shared_objects"), _entry("memfd"), _entry("memfd_program"), _entry("hugetlb"), _entry("sysv_shm"), _entry("sysv_shm_huge"), _entry("sem_undo"), _entry("mem_numa"),
    # vdso, cpu state, threads
    _entry("vdso_calls"), _entry("vdso_gone"), _entry("fpu"), _entry("fpu_initial"), _entry("rseq"), _entry("threads", modes=STOPPABLE), _entry("thread_tables", modes=STOPPABLE), _entry("dead_leader"), _entry("futex_wait"), _entry("blocked_read"),
    _entry("sleep_restart", replays=False), _entry("interrupted_calls", replays=False), _honest("interrupted_files"), _entry("busy_loop"), _entry("heartbeat20", replays=False),
    # signals, timers
    _entry("sigactions"), _entry("sigpending"), _entry("sigpending_limit"), _entry("signal_to_blocked"), _entry("posix_timers", replays=False), _entry("altstack_on"), _entry("itimers"), _entry("stopped_child"),
    # the task
    _entry("names_mm"), _entry("fsinfo"), _entry("creds"), _entry("creds_threads"), _entry("creds_setuid"), _entry("rlimits"), _entry("nice_sched"), _entry("task_flags"),
    _entry("security_label"), _entry("thread_attributes"), _entry("process_attributes"), _entry("sched_deadline"),
    _entry("exe_elf"), _entry("clocks", gap_s=2.0),
    # seccomp
    _entry("seccomp_tight", modes=STOPPABLE), _entry("seccomp_tree"), _entry("heartbeat20_sandbox", replays=False),
    _entry("seccomp_strict", modes=STOPPABLE),
    # the tree
    _entry("session_tree"), _entry("orphans"), _entry("shared_tables", modes=STOPPABLE),
    _entry("tree_cow", modes=STOPPABLE), _entry("zombies"), _entry("exit_signals"), _entry("fork_storm", compares=False, replays=False),
    # files
    _entry("files_regular"), _entry("files_devices"), _entry("files_proc"), _entry("ghost_files"), _entry("ghost_nodes"), _entry("ghost_program"), _entry("pipes", modes=STOPPABLE), _entry("pipe_tree"), _entry("event_files", replays=False), _entry("epolls"), _entry("pidfds"), _entry("bpf_maps"), _entry("io_uring", modes=STOPPABLE), _entry("io_uring_shared"), _entry("fifos", modes=STOPPABLE), _entry("fifo_ends"), _entry("ptys", modes=STOPPABLE), _entry("heartbeat20_terminal", modes=("none",)),
    _entry("file_locks", options=("--file-locks",)), _entry("file_leases", options=("--file-locks",)),
    _entry("fifo_deleted"), _entry("inotify"), _entry("inotify_oneshot"), _entry("inotify_deleted", compares=False), _entry("fanotify"),
    # 32-bit programs; those that are not there as ia32_NAME.c are NAME.c, compiled for 32 bits
    _entry("ia32_state", modes=STOPPABLE), _entry("ia32_fpu"), _entry("widths", modes=STOPPABLE), _entry("ia32_widths"),
    _entry("ia32_counter", modes=STOPPABLE + ("shell_job",)), _entry("ia32_threads", modes=STOPPABLE),
    _entry("ia32_heap"), _entry("ia32_vma_kinds"), _entry("ia32_vma_matrix"), _entry("ia32_grows_down"),
    _entry("ia32_shared_objects"), _entry("ia32_memfd"), _entry("ia32_vdso_calls"), _entry("ia32_futex_wait"),
    _entry("ia32_blocked_read"), _entry("ia32_sleep_restart", replays=False), _entry("ia32_busy_loop"),
    _entry("ia32_interrupted_calls", replays=False), _entry("ia32_sigactions"), _entry("ia32_sigpending"),
    _entry("ia32_posix_timers", replays=False), _entry("ia32_itimers"), _entry("ia32_altstack_on"),
    _entry("ia32_stopped_child"), _entry("ia32_names_mm"), _entry("ia32_creds_threads"), _entry("ia32_rlimits"),
    _entry("ia32_clocks", gap_s=2.0), _entry("ia32_thread_attributes"), _entry("ia32_process_attributes"),
    _entry("ia32_seccomp_tree"), _entry("ia32_seccomp_strict", modes=STOPPABLE), _entry("ia32_orphans"),
    _entry("ia32_tree_cow", modes=STOPPABLE), _entry("ia32_shared_tables"), _entry("ia32_zombies"), _entry("ia32_pipes"),
    _entry("ia32_heartbeat20", replays=False), _entry("ia32_heartbeat20_sandbox", replays=False),
    _refused("refuse_ia32_table", "UNSUPPORTED_STATE"),
    # what cannot be saved, or not without an option
    _refused("refuse_dead_leader", "UNSUPPORTED_STATE"), _refused("refuse_exit_signal", "UNSUPPORTED_STATE"),
    _refused("refuse_thread_tables", "UNSUPPORTED_STATE"), _refused("refuse_thread_tables_filter", "UNSUPPORTED_STATE"),
    _refused("refuse_thread_tables_child", "UNSUPPORTED_STATE"), _refused("refuse_shared_memory", "UNSUPPORTED_STATE"),
    _refused("refuse_traced", "ALREADY_TRACED"), _refused("refuse_vfork", "VFORK_PENDING|FREEZE_TIMEOUT"),
    _refused("refuse_inotify_unread", "UNSUPPORTED_STATE"), _refused("refuse_fanotify_permission", "UNSUPPORTED_FILE"),
    _refused("refuse_file_lock", "FILE_LOCKS_HELD"), _refused("refuse_mapped_lease", "FILE_LOCKS_HELD", options=("--file-locks",)), _refused("refuse_sigtrap", "UNSUPPORTED_STATE"),
    _refused("refuse_landlock", "UNSUPPORTED_STATE"), _refused("refuse_compat", "UNSUPPORTED_STATE"), _refused("refuse_mqueue", "UNSUPPORTED_FILE"),
    _refused("refuse_secretmem", "UNSUPPORTED_MAPPING"), _refused("refuse_secretmem_fd", "UNSUPPORTED_FILE"), _refused("refuse_perf_event", "UNSUPPORTED_FILE"), _refused("refuse_dead_directory", "UNSUPPORTED_FILE"), _refused("refuse_userfaultfd", "UNSUPPORTED_MAPPING|UNSUPPORTED_FILE"),
    _refused("refuse_seccomp_notify", "UNSUPPORTED_STATE"),
    _honest("refuse_unix_socket"), _honest("refuse_tcp_listen"),
    _honest("refuse_namespace"), _honest("refuse_event_files"), _refused("refuse_pidfd", "UNSUPPORTED_FILE"),
    _refused("refuse_pty_status", "UNSUPPORTED_FILE"), _refused("refuse_pty_full", "UNSUPPORTED_FILE"), _refused("refuse_pty_discipline", "UNSUPPORTED_FILE"), _refused("refuse_bpf_map", "UNSUPPORTED_FILE"), _refused("refuse_io_uring_busy", "IO_URING_BUSY"), _refused("refuse_io_uring_poller", "UNSUPPORTED_FILE|UNSUPPORTED_STATE", compares=False), _refused("refuse_io_uring_personality", "UNSUPPORTED_FILE"), _refused("refuse_aio", "UNSUPPORTED_MAPPING"), _refused("refuse_thread_timer", "UNSUPPORTED_STATE"),
)
BY_NAME = {entry.name: entry for entry in ENTRIES}
