#!/usr/bin/env python3
"""Memory of programs that run on, saved from a fork: one moment, nothing left behind, and what happens where none can be
made."""
import os
import signal
import subprocess
import sys

import harness

ROUNDS = 12


def dump(session, subject, images, *options):
    subject.saved = subject.generation, subject.save_files()
    before = harness.children_of(subject.pid)
    run = session.dump(subject.pid, images, "-R", *options)
    harness.require(harness.children_of(subject.pid) == before, "the dump left a child")
    return run


def is_forked(run):
    return "Stage drain" in run.log


def again(session, subject, images):
    """The program of the images instead of the one that runs."""
    subject.kill()
    subject.generation, files = subject.saved
    subject.put_back_files(files)
    session.restore(images, "-d")
    subject.check()


def case_one_moment(session):
    """Programs that write all the time, across processes, shared memory and a pipe, find nothing amiss."""
    subject = session.subject("snapshot_writer")
    for number in range(ROUNDS):
        images = session.path(f"images{number}")
        run = dump(session, subject, images, "--snapshot", "fork")
        harness.require(is_forked(run), "nothing was forked: " + run.describe())
        subject.check()
        again(session, subject, images)
    subject.finish()


def case_copy(session):
    subject = session.subject("snapshot_writer")
    run = dump(session, subject, session.path("images"), "--snapshot", "copy")
    harness.require("Stage fork" not in run.log, "it was forked: " + run.describe())
    again(session, subject, session.path("images"))
    subject.finish()


def case_huge_pages_of_a_pool(session):
    """The parent of a fork would take them from its child."""
    subject = session.subject("hugetlb")
    run = dump(session, subject, session.path("images"), "--snapshot", "fork")
    harness.require("huge pages of a pool" in run.log, "no reason is told: " + run.describe())
    harness.require(not is_forked(run), "it was forked")
    again(session, subject, session.path("images"))
    subject.finish()


def memory_program(session, mebibytes, busy):
    """A program with that much memory, which sleeps or writes all of it again and again."""
    ready = session.path(f"ready-{busy}")
    work = "while True:\n  for i in range(0, len(m), 1 << 20): m[i:i + (1 << 20)] = bytes([n % 256]) * (1 << 20)\n  n += 1"
    program = (f"import mmap, time\nn = 1\nm = mmap.mmap(-1, {mebibytes} << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\n"
               f"for i in range(0, len(m), 4096): m[i] = 1\nopen({ready!r}, 'w').close()\n"
               + (work if busy else "time.sleep(1000)"))
    pid = session.start(sys.executable, "-c", program)
    harness.wait_until(lambda: os.path.exists(ready), "the program does not get ready")
    return pid


def case_automatic(session):
    """Much memory that rests is forked, memory that is rewritten all the time is copied, and little is."""
    for mebibytes, busy, forks in ((160, False, True), (160, True, False), (16, False, False)):
        pid = memory_program(session, mebibytes, busy)
        run = session.dump(pid, session.path(f"images-{mebibytes}-{busy}"), "-R")
        harness.require(is_forked(run) == forks, f"{mebibytes} MiB, busy {busy}: wanted a fork: {forks}: " + run.describe())
        harness.require(harness.children_of(pid) == [], "the dump left a child")
        os.kill(pid, signal.SIGKILL)
        session.wait_gone(pid)
        os.unlink(session.path(f"ready-{busy}"))


def state_while_draining(session, pid, images):
    """A dump that is stopped while it copies from the fork; the tool, and the fork."""
    os.makedirs(images)
    tool = subprocess.Popen([session.stasis, "dump", "-t", str(pid), "-D", images, "-R", "--snapshot", "fork"],
                            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    copies = harness.wait_until(lambda: tool.poll() is not None or [
        child for child in harness.children_of(pid) if harness.read(f"/proc/{child}/oom_score_adj", "").strip() == "1000"],
        "there is no fork", step_s=0.001)
    harness.require(copies is not True, "the dump was over before it could be disturbed")
    return tool, copies[0]


def case_killed(session):
    """A fork whose controller dies ends; it never runs as a second copy of the program."""
    pid = memory_program(session, 400, False)
    tool, copy = state_while_draining(session, pid, session.path("killed"))
    tool.kill()
    tool.wait()
    harness.wait_until(lambda: not harness.is_alive(copy), "the fork lives on")
    harness.require(harness.state_of(pid) in "RS", "the program does not run")
    session.dump(pid, session.path("second"), "-R")


def case_interrupted(session):
    """Nothing is left of a dump that is interrupted while it copies, and its images are no dump."""
    pid = memory_program(session, 400, False)
    tool, copy = state_while_draining(session, pid, session.path("images"))
    os.kill(tool.pid, signal.SIGTERM)
    harness.require(tool.wait() == 1, "the interrupted dump does not fail")
    harness.require(harness.children_of(pid) == [] and not os.path.exists(f"/proc/{copy}"), "the fork is left")
    harness.require(harness.state_of(pid) in "RS", "the program does not run")
    harness.require(not os.path.exists(session.path("images", "inventory.img")), "there is an inventory")


if __name__ == "__main__":
    sys.exit(harness.run_scenarios(globals()))
