#!/usr/bin/env python3
"""SIGINT and SIGTERM at any moment of a dump or a restore: an ordinary end with everything undone, or success."""
import os
import random
import signal
import subprocess
import sys
import time

import harness
import procview

TRIES = 40
SPREAD_S = 0.03


def interrupted_run(session, number, *arguments):
    """Runs the tool and signals it after a random time; (exit status, stderr)."""
    stderr = session.path("interrupted")
    with open(stderr, "w") as err:
        process = subprocess.Popen([session.stasis, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=err, stderr=err)
        time.sleep(random.random() * SPREAD_S)
        process.send_signal((signal.SIGINT, signal.SIGTERM)[number % 2])
        status = process.wait(harness.TOOL_TIMEOUT_S)
    text = harness.read(stderr)
    # Before the program has its handlers the default action ends it; nothing was begun then.
    early = status in (-signal.SIGINT, -signal.SIGTERM)
    harness.require(status in (0, 1) or early, f"ended with {status}: {text}")
    if status == 1:
        harness.require(harness.REASON_CODE.findall(text) == ["INTERRUPTED"], f"not told as an interruption: {text}")
    return status, text


def case_dump(session):
    harness.needs_root()
    subject = session.subject("threads")
    images = session.make_directory("images")
    before = procview.snapshot(subject.pid)
    ends = set()
    for number in range(TRIES):
        status, text = interrupted_run(session, number, "dump", "-t", subject.pid, "-D", images, "-R", "-v0")
        ends.add(status)
        procview.compare(before, procview.snapshot(subject.pid), f"after an interrupted dump ({text.strip()})")
        subject.check()
    print(f"ends seen: {sorted(ends)}")
    session.dump(subject.pid, images)
    session.wait_gone(subject.pid)
    session.restore(images, "-d")
    subject.finish()


def interrupt_restores(session, pid, images, check=lambda: None):
    """Interrupted restores of a dumped tree: none leaves a task behind."""
    ends = set()
    for number in range(TRIES):
        status, text = interrupted_run(session, number, "restore", "-D", images, "-d", "-v0")
        ends.add(status)
        if status == 0:
            check()
            session.dump(pid, images)
            session.wait_gone(pid)
        session.reap()
        left = harness.children_of(os.getpid())
        harness.require(not left, f"an interrupted restore left {left} ({text.strip()})")
    print(f"ends seen: {sorted(ends, key=str)}")


def case_restore(session):
    harness.needs_root()
    subject = session.subject("tree_cow")
    images = session.path("images")
    session.dump(subject.pid, images)
    session.wait_gone(subject.pid)
    interrupt_restores(session, subject.pid, images, subject.check)
    session.restore(images, "-d")
    subject.finish()


CROWD = """\
import os, threading, time
for _ in range(5):
    if os.fork() == 0:
        break
for _ in range(100):
    threading.Thread(target=time.sleep, args=(1000,)).start()
os.write(1, b".")
"""


def case_restore_of_many_threads(session):
    """Most of these restores are interrupted while threads are being made."""
    harness.needs_root()
    pid = session.start("/usr/bin/python3", "-c", CROWD, stdout=session.path("started"))
    harness.wait_until(lambda: harness.read(session.path("started")) == "." * 6, "the threads do not start")
    images = session.path("images")
    session.dump(pid, images)
    session.wait_gone(pid)
    interrupt_restores(session, pid, images)


if __name__ == "__main__":
    sys.exit(harness.run_scenarios(globals()))
