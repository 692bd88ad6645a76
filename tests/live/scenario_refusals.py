#!/usr/bin/env python3
"""Requests that cannot be served: exit status 1, one error with cause and remedy, and nothing is harmed."""
import os
import signal
import sys

import harness
import procview


def expect_unharmed(session, subject, reason, *arguments, **keywords):
    before = procview.snapshot(subject.pid)
    run = session.run(*arguments, **keywords)
    harness.check_refusal(run, reason)
    procview.compare(before, procview.snapshot(subject.pid), "after " + " ".join(map(str, arguments)))
    subject.check()
    return run


def case_missing_pid(session):
    harness.needs_root()
    pid = session.start("true")
    session.wait_gone(pid)
    images = session.path("images")
    harness.check_refusal(session.dump(pid, images, expect_success=False), "NO_SUCH_TASK")
    harness.require(os.path.exists(os.path.join(images, "dump.log")), "no log file")
    harness.require(not os.path.exists(os.path.join(images, "inventory.img")), "a failed dump left an inventory")


def case_zombie(session):
    harness.needs_root()
    pid = session.start("true")
    harness.wait_until(lambda: harness.state_of(pid) == "Z", "no zombie")
    run = session.run("dump", "-t", pid, "-D", session.directory)
    harness.check_refusal(run, "NO_SUCH_TASK|TASK_VANISHED|UNSUPPORTED_STATE")


def case_own_ancestor(session):
    """The caller itself, and the first task of a pid namespace: both trees hold the tool. The shells that stand for
    them are expendable, should they be frozen by mistake."""
    harness.needs_root()
    for target, wrapper in (("$$", ()), ("1", ("unshare", "--pid", "--fork", "--mount-proc"))):
        script = f'"$0" dump -t {target} -D "$1" -R; status=$?; exit $status'
        run = session.run("-c", script, session.stasis, session.directory, binary="sh", wrapper=wrapper)
        harness.check_refusal(run, "OWN_ANCESTOR")


def case_traced(session):
    harness.needs_root()
    subject = session.subject("refuse_traced")
    child = harness.children_of(subject.pid)[0]
    expect_unharmed(session, subject, "ALREADY_TRACED", "dump", "-t", child, "-D", session.directory, "-R")
    subject.finish()


def case_kernel_thread(session):
    harness.needs_root()
    run = session.dump(2, session.path("images"), expect_success=False)
    harness.check_refusal(run, "KERNEL_THREAD")


def case_thread_id(session):
    """A thread that is not the leader of its process."""
    harness.needs_root()
    subject = session.subject("threads")
    tid = next(tid for tid in map(int, os.listdir(f"/proc/{subject.pid}/task")) if tid != subject.pid)
    expect_unharmed(session, subject, None, "dump", "-t", tid, "-D", session.directory, "-R")
    subject.finish()


def case_no_permission(session):
    harness.needs_root()
    subject = session.subject("counter")
    images = session.make_directory("images")
    os.chmod(images, 0o777)
    as_nobody = ("env", "HOME=/", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all")
    expect_unharmed(session, subject, "NO_PRIVILEGE", "dump", "-t", subject.pid, "-D", images, wrapper=as_nobody)
    expect_unharmed(session, subject, "NO_PRIVILEGE", "dump", "-t", subject.pid, "-D", images, "--unprivileged",
                    wrapper=as_nobody)
    run = session.run("restore", "-D", images, "-d", wrapper=as_nobody)
    harness.check_refusal(run, "NO_PRIVILEGE")
    subject.finish()


def case_image_directory(session):
    harness.needs_root()
    subject = session.subject("counter")
    for images in (session.path("missing"), os.path.join(subject.directory, "count")):
        expect_unharmed(session, subject, "IMAGE_DIR", "dump", "-t", subject.pid, "-D", images)
        harness.check_refusal(session.run("restore", "-d", "-D", images), "IMAGE_DIR")
    subject.finish()


def case_log_file(session):
    harness.needs_root()
    subject = session.subject("counter")
    images = session.make_directory("images")
    os.mkdir(os.path.join(images, "directory"))
    for name in ("sub/dump.log", "/tmp/../dump.log", "directory"):
        expect_unharmed(session, subject, "LOG_FILE", "dump", "-t", subject.pid, "-D", images, "-o", name)
    subject.finish()


def case_not_session_leader(session):
    harness.needs_root()
    subject = session.subject("counter", new_session=False)
    expect_unharmed(session, subject, "NOT_SESSION_LEADER", "dump", "-t", subject.pid, "-D", session.directory)
    subject.finish()


def case_pid_taken(session):
    harness.needs_root()
    subject = session.subject("threads")
    images = session.path("images")
    session.dump(subject.pid, images, "-R")
    expect_unharmed(session, subject, "PID_TAKEN", "restore", "-d", "-D", images)
    subject.finish()


def case_group_taken(session):
    """A process that left the tree is in the group and session of the root still, and keeps their number in use."""
    harness.needs_root()
    pid = session.start("sh", "-c", "sh -c 'sleep 1000 &'; exec sleep 1001")
    harness.wait_until(lambda: not harness.children_of(pid) and "sleep" in harness.read(f"/proc/{pid}/comm", ""),
                       "the shell does not become what it should")
    images = session.path("images")
    session.dump(pid, images)
    session.wait_gone(pid)
    run = session.restore(images, "-d", expect_success=False)
    harness.check_refusal(run, "PID_TAKEN")
    harness.require("group" in run.stderr, "the error does not tell what has the number: " + run.stderr)
    session.end_everything()
    session.restore(images, "-d")


def dumped_copy(session):
    """A dumped program that ran from a file of its own: the subject, its images, the file."""
    subject = session.subject("exe_elf")
    images = session.path("images")
    session.dump(subject.pid, images)
    session.wait_gone(subject.pid)
    return subject, images, os.path.join(subject.directory, "copy")


def case_program_grew(session):
    harness.needs_root()
    subject, images, program = dumped_copy(session)
    size = os.path.getsize(program)
    with open(program, "ab") as file:
        file.write(b"more")
    for validation in ("buildid", "filesize"):
        run = session.restore(images, "-d", "--file-validation", validation, expect_success=False)
        harness.check_refusal(run, "FILE_CHANGED")
    os.truncate(program, size)
    session.restore(images, "-d")
    subject.finish()


def case_other_build(session):
    harness.needs_root()
    subject, images, program = dumped_copy(session)
    with open(program, "r+b") as file:
        content = file.read()
        note = content.find(b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0")  # name size, description size, NT_GNU_BUILD_ID
        if note < 0:
            raise harness.Skip("this machine lacks: a linker that writes build ids")
        file.seek(note + 16)
        file.write(bytes(byte ^ 0xff for byte in content[note + 16:note + 36]))
    harness.check_refusal(session.restore(images, "-d", expect_success=False), "FILE_CHANGED")
    session.restore(images, "-d", "--file-validation", "filesize")
    subject.finish()


def case_program_missing(session):
    harness.needs_root()
    subject, images, program = dumped_copy(session)
    os.rename(program, program + ".away")
    run = session.restore(images, "-d", expect_success=False)
    harness.check_refusal(run, "FILE_MISSING")
    harness.require(program in run.stderr, "the error does not name the file: " + run.stderr)
    os.rename(program + ".away", program)
    session.restore(images, "-d")
    subject.finish()


def case_stopped_tree(session):
    """A tree that somebody stopped before is refused or kept: it stays stopped and goes on by SIGCONT."""
    harness.needs_root()
    subject = session.subject("counter")
    os.kill(subject.pid, signal.SIGSTOP)
    harness.wait_until(lambda: harness.state_of(subject.pid) == "T", "SIGSTOP does not stop it")
    run = session.dump(subject.pid, session.path("images"), "-R", expect_success=False)
    harness.require(run.status in (0, 1), run.describe())
    harness.require(harness.state_of(subject.pid) == "T", f"the state is {harness.state_of(subject.pid)}, no longer stopped")
    os.kill(subject.pid, signal.SIGCONT)
    subject.finish()


if __name__ == "__main__":
    sys.exit(harness.run_scenarios(globals()))
