#!/usr/bin/env python3
"""System V IPC of the host between dump and restore: gone, still there, used by others, replaced by other ones."""
import ctypes
import os
import sys

import harness

libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
libc.shmat.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]
libc.shmdt.argtypes = [ctypes.c_void_p]
IPC_RMID = 0
IPC_CREAT = 0o1000
IPC_PRIVATE = 0
PAGE_BYTES = 4096
TAG_OFFSET = 3 * PAGE_BYTES + 64  # of the segment with a key: nobody else writes there


class Segments:
    """A subject with its segments; those that it leaves behind are removed."""

    def __init__(self, session):
        self.subject = session.subject("sysv_shm")
        ids = harness.read(os.path.join(self.subject.directory, "segments")).split()
        self.keyed, self.doomed, self.single = map(int, ids)
        self.made = []

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        for segment in (self.keyed, self.single, *self.made):
            libc.shmctl(segment, IPC_RMID, None)


def attached(segment):
    address = libc.shmat(segment, None, 0)
    harness.require(address not in (None, ctypes.c_void_p(-1).value), f"segment {segment} cannot be attached")
    return address


def exists(segment):
    return libc.shmctl(segment, 2, ctypes.create_string_buffer(256)) >= 0  # IPC_STAT


def dumped(session, segments):
    images = session.path("images")
    session.dump(segments.subject.pid, images)
    session.wait_gone(segments.subject.pid)
    return images


def case_gone(session):
    """All segments are made again: id, key, owner, contents; and do not outlive the program more than before."""
    with Segments(session) as segments:
        images = dumped(session, segments)
        harness.require(not exists(segments.doomed), "a marked segment outlives its program")
        for segment in (segments.keyed, segments.single):
            libc.shmctl(segment, IPC_RMID, None)
        session.restore(images, "-d")
        segments.subject.check()
        segments.subject.finish()
        harness.require(not exists(segments.doomed), "a marked segment that was made again outlives its program")


def case_used_by_others(session):
    """What others wrote since the dump is not overwritten, and the segment stays attached to them."""
    with Segments(session) as segments:
        keyed, doomed = attached(segments.keyed), attached(segments.doomed)
        images = dumped(session, segments)
        ctypes.memmove(keyed + TAG_OFFSET, b"written since", 13)
        run = session.restore(images, "-d")
        harness.require(f"segment {segments.doomed} (key 0x0) still exists" in run.log, run.describe())
        harness.require(ctypes.string_at(keyed + TAG_OFFSET, 13) == b"written since", "a restore overwrote a segment")
        libc.shmdt(keyed)
        libc.shmdt(doomed)
        segments.subject.check()
        segments.subject.finish()


def expect_taken(session, segments, images, what):
    run = session.restore(images, "-d", expect_success=False)
    harness.check_refusal(run, "IPC_ID_TAKEN")
    harness.require(what in run.stderr, run.describe())
    harness.require(not os.path.exists(f"/proc/{segments.subject.pid}"), "a refused restore left its task")
    harness.require(not exists(segments.doomed), "a refused restore left a segment")


def case_another_has_the_id(session):
    with Segments(session) as segments:
        images = dumped(session, segments)
        libc.shmctl(segments.single, IPC_RMID, None)
        with open("/proc/sys/kernel/shm_next_id", "w") as file:
            file.write(str(segments.single))
        segments.made.append(libc.shmget(IPC_PRIVATE, 7, IPC_CREAT | 0o600))
        harness.require(segments.made == [segments.single], "the kernel gives another id")
        expect_taken(session, segments, images, f"ipcrm -m {segments.single}")
        libc.shmctl(segments.single, IPC_RMID, None)
        session.restore(images, "-d")
        segments.subject.finish()


def case_another_has_the_key(session):
    with Segments(session) as segments:
        images = dumped(session, segments)
        key = 0x5a000000 + segments.subject.pid
        libc.shmctl(segments.keyed, IPC_RMID, None)
        segments.made.append(libc.shmget(key, 7, IPC_CREAT | 0o600))
        harness.require(segments.made[0] not in (-1, segments.keyed), "no other segment with the key")
        expect_taken(session, segments, images, "key")
        libc.shmctl(segments.made[0], IPC_RMID, None)
        session.restore(images, "-d")
        segments.subject.finish()


def case_failed_restore(session):
    """A restore that fails late leaves no segment that it made."""
    with Segments(session) as segments:
        images = dumped(session, segments)
        for segment in (segments.keyed, segments.single):
            libc.shmctl(segment, IPC_RMID, None)
        run = session.restore(images, "-d", "--pidfile", "/nowhere/pid", expect_success=False)
        harness.check_refusal(run, "PIDFILE")
        left = [segment for segment in (segments.keyed, segments.doomed, segments.single) if exists(segment)]
        harness.require(not left, f"a failed restore left segments {left}")
        session.restore(images, "-d")
        segments.subject.finish()


def case_other_creator(session):
    """A segment that another user made has the same creator when it is made again."""
    harness.needs_root()
    made = session.path("made")
    pid = os.fork()
    if pid == 0:
        os.setresgid(4001, 4001, 4001)
        os.setresuid(4000, 4000, 4000)
        os._exit(0 if libc.shmget(0x5b000000 + os.getppid(), 8192, IPC_CREAT | 0o666) >= 0 else 1)
    harness.require(os.waitpid(pid, 0)[1] == 0, "the segment cannot be made")
    key = 0x5b000000 + os.getpid()
    segment = libc.shmget(key, 0, 0)
    try:
        program = ("import ctypes, time; libc = ctypes.CDLL(None); libc.shmat.restype = ctypes.c_void_p; "
                   f"a = libc.shmat({segment}, None, 0); ctypes.memmove(a, b'kept', 4); print('ready', flush=True)\n"
                   "while True: time.sleep(0.01); print(ctypes.string_at(a, 4), flush=True)")
        pid = session.start(sys.executable, "-c", program, stdout=made)
        harness.wait_until(lambda: "ready" in harness.read(made, ""), "the program does not get ready")
        session.dump(pid, session.path("images"))
        session.wait_gone(pid)
        before = line_of(segment)
        libc.shmctl(segment, IPC_RMID, None)
        session.restore(session.path("images"), "-d")
        after = line_of(segment)
        harness.require(before[:4] == after[:4] and before[7:11] == after[7:11], f"{before} became {after}")
        size = os.path.getsize(made)
        harness.wait_until(lambda: os.path.getsize(made) > size + 100, "the program does not go on")
        harness.require(set(harness.read(made)[size:].split()[1:-1]) == {"b'kept'"}, "the contents are other ones")
    finally:
        session.end_everything()
        libc.shmctl(segment, IPC_RMID, None)


def dumped_with_undo(session):
    subject = session.subject("sem_undo")
    images = session.path("images")
    session.dump(subject.pid, images)
    session.wait_gone(subject.pid)
    return subject, images, int(harness.read(os.path.join(subject.directory, "set")))


SETVAL = 16
LOCK = 0  # the semaphore that the subject holds


def case_lock_of_another(session):
    """What the dump gave back is taken by somebody else: refused, until that one gives it back."""
    subject, images, semaphores = dumped_with_undo(session)
    try:
        harness.require(libc.semctl(semaphores, LOCK, SETVAL, 0) == 0, "the lock cannot be taken")
        run = session.restore(images, "-d", expect_success=False)
        harness.check_refusal(run, "RESTORE_CALL_FAILED")
        harness.require(f"semaphore {LOCK} of set {semaphores}" in run.stderr, run.describe())
        harness.require(not os.path.exists(f"/proc/{subject.pid}"), "a refused restore left its task")
        libc.semctl(semaphores, LOCK, SETVAL, 1)
        session.restore(images, "-d")
        subject.finish()
    finally:
        libc.semctl(semaphores, 0, IPC_RMID)


def case_semaphores_gone(session):
    """Nothing is left to be undone: that is told, and the program goes on."""
    subject, images, semaphores = dumped_with_undo(session)
    libc.semctl(semaphores, 0, IPC_RMID)
    run = session.restore(images, "-d")
    harness.require(f"semaphore set {semaphores} is gone" in run.log, run.describe())


WITH_UNDO = """
import ctypes, os, struct, threading, time
libc = ctypes.CDLL(None)
semaphores = libc.semget(0, 1, 0o1600)
libc.semctl(semaphores, 0, 16, 3)
libc.semop(semaphores, struct.pack("HhH", 0, -1, 0o10000), 1)
SHARE
print(semaphores, flush=True)
while True:
    time.sleep(1000)
"""


def started_with_undo(session, share):
    output = session.path("ready")
    program = WITH_UNDO.replace("SHARE", share)
    pid = session.start(sys.executable, "-c", program, stdout=output)
    harness.wait_until(lambda: harness.read(output), "the program does not get ready")
    return pid, int(harness.read(output).split()[0])


def case_undo_shared_with_parent(session):
    """A child that was cloned with CLONE_SYSVSEM would give back the same: refused, and the program goes on."""
    pid, semaphores = started_with_undo(
        session, "libc.syscall(56, 0x40000 | 17, 0, 0, 0, 0) or [time.sleep(1000) for _ in range(1000)]")
    try:
        run = session.dump(pid, session.path("images"), "-R", expect_success=False)
        harness.check_refusal(run, "UNSUPPORTED_STATE")
        harness.require("CLONE_SYSVSEM" in run.stderr, run.describe())
        harness.require(libc.semctl(semaphores, 0, 12) == 2, "the value has changed")  # GETVAL
    finally:
        session.end_everything()
        libc.semctl(semaphores, 0, IPC_RMID)


def case_questions_change_nothing(session):
    """A dump asks what is to be undone; neither the values nor who used the set last, and when, are other ones."""
    pid, semaphores = started_with_undo(session, "threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()")
    try:
        before = [line for line in harness.read("/proc/sysvipc/sem").splitlines() if line.split()[1] == str(semaphores)]
        for number in range(3):
            session.dump(pid, session.path(f"images{number}"), "-R")
        after = [line for line in harness.read("/proc/sysvipc/sem").splitlines() if line.split()[1] == str(semaphores)]
        harness.require(before == after, f"{before} became {after}")
        harness.require(libc.semctl(semaphores, 0, 11) == pid, "another process used the set last")  # GETPID
        harness.require(libc.semctl(semaphores, 0, 12) == 2, "the value has changed")
        session.dump(pid, session.path("images"))
        session.wait_gone(pid)
        harness.require(libc.semctl(semaphores, 0, 12) == 3, "the end of the program gives nothing back")
        session.restore(session.path("images"), "-d")
        harness.require(libc.semctl(semaphores, 0, 12) == 2, "the restored program does not hold it")
        session.end_everything()
        harness.require(libc.semctl(semaphores, 0, 12) == 3, "the end of the restored program gives nothing back")
    finally:
        libc.semctl(semaphores, 0, IPC_RMID)


def line_of(segment):
    """key shmid perms size cpid lpid nattch uid gid cuid cgid ..."""
    with open("/proc/sysvipc/shm") as file:
        return next(line.split() for line in file if line.split()[1] == str(segment))


if __name__ == "__main__":
    sys.exit(harness.run_scenarios(globals()))
