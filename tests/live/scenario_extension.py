#!/usr/bin/env python3
"""What images of other programs have no place for, when the restore is started with other attributes than the tasks."""
import os
import struct
import sys

import harness
import procview


def need_two_processors():
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        raise harness.Skip("this machine lacks: a second processor")
    return cpus


def dumped(session, name, images="images"):
    """A subject whose images are there; it, the directory, and how its tree looked."""
    subject = session.subject(name)
    before = procview.snapshot(subject.pid)
    session.dump(subject.pid, session.path(images))
    session.wait_gone(subject.pid)
    return subject, session.path(images), before


def restored_under(session, name, wrapper):
    subject, images, before = dumped(session, name)
    session.restore(images, "-d", wrapper=wrapper)
    procview.compare(before, procview.snapshot(subject.pid), f"after a restore under {wrapper[0]}")
    subject.finish()


def case_bound_restorer(session):
    """Threads with and without a binding come back as they were, although the restore may use one processor only."""
    cpu = need_two_processors()[0]
    restored_under(session, "nice_sched", ("taskset", "-c", str(cpu)))


# Other values than the defaults for everything that a new task inherits.
UNUSUAL = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
prctl = lambda *arguments: libc.prctl(*(list(arguments) + [0] * (5 - len(arguments))))
prctl(29, 777)         # PR_SET_TIMERSLACK
prctl(33, 1, 1)        # PR_MCE_KILL: early
prctl(57, 1)           # PR_SET_IO_FLUSHER
prctl(67, 1)           # PR_SET_MEMORY_MERGE
libc.syscall(251, 1, 0, 3 << 13)                        # ioprio_set: idle
libc.syscall(238, 2, ctypes.byref(ctypes.c_ulong(1)), ctypes.c_ulong(65))  # set_mempolicy: MPOL_BIND to node 0
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
os.nice(3)
open("/proc/self/coredump_filter", "w").write("0x2")
os.execv(sys.argv[1], sys.argv[1:])
"""


def case_unusual_restorer(session):
    """Nothing of the restorer's own attributes is handed on."""
    for number, name in enumerate(("thread_attributes", "process_attributes", "task_flags")):
        subject = session.subject(name, directory=name)
        before = procview.snapshot(subject.pid)
        images = session.path(f"images{number}")
        session.dump(subject.pid, images)
        session.wait_gone(subject.pid)
        session.restore(images, "-d", wrapper=(sys.executable, "-c", UNUSUAL))
        procview.compare(before, procview.snapshot(subject.pid), "after an unusual restore")
        subject.finish()


def without_extension(images):
    """Makes it a dump of another program."""
    os.unlink(os.path.join(images, "extension.img"))
    os.unlink(os.path.join(images, "stasis-manifest"))


def affinities(pid):
    return {frozenset(os.sched_getaffinity(int(tid))) for tid in os.listdir(f"/proc/{pid}/task")}


def case_no_extension(session):
    """A dump of another program tells nothing: what the caller has stays."""
    cpu = need_two_processors()[1]
    subject, images, _ = dumped(session, "counter")
    without_extension(images)
    session.restore(images, "-d", wrapper=("taskset", "-c", str(cpu)))
    harness.require(affinities(subject.pid) == {frozenset({cpu})}, f"it runs on {affinities(subject.pid)}")
    subject.finish()


def case_lost_extension(session):
    """The manifest knows that there was one."""
    subject, images, _ = dumped(session, "counter")
    os.unlink(os.path.join(images, "extension.img"))
    harness.check_refusal(session.restore(images, "-d", expect_success=False), "IMAGE_MISSING")
    harness.require(not os.path.exists(f"/proc/{subject.pid}"), "a refused restore left its task")


def case_ignored_affinity(session):
    cpus = need_two_processors()
    subject, images, _ = dumped(session, "nice_sched")
    session.restore(images, "-d", "--cpu-affinity", "ignore", wrapper=("taskset", "-c", str(cpus[1])))
    harness.require(affinities(subject.pid) == {frozenset({cpus[1]})}, f"it runs on {affinities(subject.pid)}")


def varint(number):
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7f | 0x80)
        number >>= 7
    return bytes([*out, number])


def field(number, value):
    """A field of a protobuf message: a number, or a message in bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def bind_to(images, tid, cpus):
    """Replaces what the dump says of its tasks: this one is bound to these processors."""
    words = [sum(1 << cpu % 64 for cpu in cpus if cpu // 64 == word) for word in range(max(cpus) // 64 + 1)]
    thread = b"".join(field(1, word) for word in words)
    without_extension(images)
    with open(os.path.join(images, "extension.img"), "wb") as file:
        file.write(struct.pack("<II", 0x54564319, 0x53455854))
        for record in (field(1, 1), field(1, tid) + field(2, thread)):
            file.write(struct.pack("<I", len(record)) + record)


NO_SUCH_CPU = 8191


def case_processors_that_are_gone(session):
    cpus = need_two_processors()
    subject, images, _ = dumped(session, "counter")
    bind_to(images, subject.pid, [NO_SUCH_CPU])
    run = session.restore(images, "-d", expect_success=False)
    harness.check_refusal(run, "RESTORE_CALL_FAILED")
    harness.require("--cpu-affinity ignore" in run.stderr, run.describe())
    harness.require(not os.path.exists(f"/proc/{subject.pid}"), "a refused restore left its task")
    session.restore(images, "-d", "--cpu-affinity", "ignore")
    harness.require(affinities(subject.pid) == {frozenset(cpus)}, f"it runs on {affinities(subject.pid)}")
    subject.finish()


def case_some_processors_are_gone(session):
    cpu = need_two_processors()[1]
    subject, images, _ = dumped(session, "counter")
    bind_to(images, subject.pid, [cpu, NO_SUCH_CPU])
    session.restore(images, "-d")
    harness.require(affinities(subject.pid) == {frozenset({cpu})}, f"it runs on {affinities(subject.pid)}")
    subject.finish()


if __name__ == "__main__":
    sys.exit(harness.run_scenarios(globals()))
