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


def case_landlock_allowed(session):
    """What cannot be kept is left out if the user says so; both runs tell, and the images hold it."""
    subject = session.subject("refuse_landlock")
    images = session.path("images")
    run = session.dump(subject.pid, session.path("refused"), "-R", expect_success=False)
    harness.check_refusal(run, "UNSUPPORTED_STATE")
    harness.require("--allow-lossy landlock" in run.stderr, run.describe())
    subject.check()
    run = session.dump(subject.pid, images, "--allow-lossy", "landlock")
    harness.require("Left out (landlock)" in run.log, run.describe())
    session.wait_gone(subject.pid)
    with open(os.path.join(subject.directory, "lossy"), "w"):
        pass
    run = session.restore(images, "-d")
    harness.require("left out (landlock)" in run.log, run.describe())
    subject.finish()


LANDLOCKED_USER = """
import ctypes, os, struct, time
libc = ctypes.CDLL(None, use_errno=True)
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
if RESTRICT:
    rules = ctypes.create_string_buffer(struct.pack("<Q", 1 << 6))  # LANDLOCK_ACCESS_FS_MAKE_CHAR
    fd = libc.syscall(444, rules, ctypes.c_ulong(8), 0)
    if fd < 0 or libc.prctl(38, 1, 0, 0, 0) != 0 or libc.syscall(446, fd, 0) != 0:
        os._exit(1)
    os.close(fd)
print("ready", flush=True)
while True:
    time.sleep(1000)
"""


def case_landlock_of_another_user(session):
    """Noticed for tasks of any user, and only where there is a domain."""
    harness.needs_root()
    for restrict in (False, True):
        output = session.path(f"ready{restrict}")
        pid = session.start(sys.executable, "-c", LANDLOCKED_USER.replace("RESTRICT", str(restrict)), stdout=output)
        harness.wait_until(lambda: harness.read(output) or session.has_ended(pid), "the program does not get ready")
        if session.has_ended(pid):
            raise harness.Skip("this machine lacks: Landlock")
        run = session.dump(pid, session.path(f"images{restrict}"), "-R", expect_success=not restrict)
        if restrict:
            harness.check_refusal(run, "UNSUPPORTED_STATE")
            harness.require("Landlock" in run.stderr, run.describe())


def case_control_groups_are_told(session):
    """The place in the control groups is not kept, which is no refusal but is said."""
    base = next((path for path in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup") if
                 os.access(os.path.join(path, "cgroup.procs"), os.W_OK)), None)
    if base is None:
        raise harness.Skip("this machine lacks: a writable control group hierarchy")
    group = os.path.join(base, f"stasis-test-{os.getpid()}")
    os.mkdir(group)
    try:
        subject = session.subject("counter")
        quiet = session.dump(subject.pid, session.path("quiet"), "-R")
        harness.require("control-groups" not in quiet.log, quiet.describe())
        with open(os.path.join(group, "cgroup.procs"), "w") as file:
            file.write(str(subject.pid))
        ignored = session.dump(subject.pid, session.path("ignored"), "-R", "--manage-cgroups=ignore")
        harness.require("control-groups" not in ignored.log, ignored.describe())
        told = session.dump(subject.pid, session.path("images"))
        harness.require("Left out (control-groups)" in told.log, told.describe())
        session.wait_gone(subject.pid)
        told = session.restore(session.path("images"), "-d")
        harness.require("left out (control-groups)" in told.log, told.describe())
        subject.finish()
    finally:
        session.end_everything()
        harness.wait_until(lambda: not harness.read(os.path.join(group, "cgroup.procs")), "the group does not get empty")
        os.rmdir(group)


JOIN = """
import ctypes, sys, time
libc = ctypes.CDLL(None, use_errno=True)
name = NAME
serial = libc.syscall(250, 1, name)  # keyctl: KEYCTL_JOIN_SESSION_KEYRING
libc.syscall(250, 5, serial, 0x3f3f0000)  # KEYCTL_SETPERM: others of the user may search it
print(serial, flush=True)
while True:
    time.sleep(0.02)
    print(libc.syscall(249, b"keyring", name or b"_ses", None, 0), flush=True)  # request_key
"""


def with_keyring(session, name):
    """A program in a session keyring of that name, or in one without; its pid, its output, and the keyring."""
    output = session.path("serials")
    pid = session.start(sys.executable, "-c", JOIN.replace("NAME", repr(name)), stdout=output)
    harness.wait_until(lambda: harness.read(output, "").count("\n") > 2, "the program does not get ready")
    serial = int(harness.read(output).split()[0])
    if serial < 0:
        raise harness.Skip("this machine lacks: keyrings")
    return pid, output, serial


def last_serial(output):
    size = os.path.getsize(output)
    harness.wait_until(lambda: os.path.getsize(output) > size + 40, "the program does not go on")
    return int(harness.read(output).split()[-1])


KEEPER = "import ctypes, time; print(ctypes.CDLL(None).syscall(250, 1, NAME), flush=True); time.sleep(1000)"


def case_named_session_keyring(session):
    """It is joined again, if it still exists; else the restore tells."""
    name = f"stasis-test-{os.getpid()}".encode()
    pid, output, serial = with_keyring(session, name)
    kept = session.path("kept")
    keeper = session.start(sys.executable, "-c", KEEPER.replace("NAME", repr(name)), stdout=kept)
    harness.wait_until(lambda: harness.read(kept), "the keeper does not get ready")
    if int(harness.read(kept)) != serial:
        raise harness.Skip("this machine lacks: a session keyring that two programs can join")
    images = session.path("images")
    run = session.dump(pid, images)
    harness.require("session-keyring" not in run.log, run.describe())
    session.wait_gone(pid)
    size = os.path.getsize(output)
    run = session.restore(images, "-d")
    harness.require(last_serial(output) == serial, "it has another session keyring")
    for task in (pid, keeper):
        os.kill(task, 9)
        session.wait_gone(task)
    harness.wait_until(lambda: name.decode() not in harness.read("/proc/keys"), "the keyring does not go away")
    os.truncate(output, size)
    run = session.restore(images, "-d")
    harness.require("cannot be joined" in run.log, run.describe())


def case_session_keyring_without_a_name(session):
    """It cannot be joined by anybody: both runs tell, neither refuses; a dump that goes on changes nothing."""
    pid, output, serial = with_keyring(session, None)
    run = session.dump(pid, session.path("running"), "-R")
    harness.require("Left out (session-keyring)" in run.log, run.describe())
    harness.require(last_serial(output) == serial, "a dump changed the session keyring")
    session.dump(pid, session.path("images"))
    session.wait_gone(pid)
    run = session.restore(session.path("images"), "-d")
    harness.require("left out (session-keyring)" in run.log and "cannot be joined" in run.log, run.describe())


def case_unknown_loss(session):
    run = session.run("dump", "-t", "1", "--allow-lossy", "landlock,memory")
    harness.check_refusal(run, "BAD_OPTION")


if __name__ == "__main__":
    sys.exit(harness.run_scenarios(globals()))
