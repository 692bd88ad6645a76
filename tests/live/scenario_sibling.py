#!/usr/bin/env python3
"""Whose child a detached restore leaves, and what becomes of a signal that was to be sent at the parent's end."""
import os
import re
import signal
import sys

import harness


def parent_of(pid):
    text = harness.read(f"/proc/{pid}/stat")
    return int(text[text.rindex(")") + 2:].split()[1])


def dumped(session):
    """The pid and the images of a program that asked for a signal at its parent's end."""
    ready = session.path("ready")
    session.start(os.path.join(session.programs, "death_signal"), ready)
    pid = int(harness.wait_until(lambda: harness.read(ready, "").strip(), "the program does not get ready"))
    images = session.path("images")
    session.dump(pid, images)
    session.wait_gone(pid)
    return pid, images


def case_sibling(session):
    pid, images = dumped(session)
    # The caller is a shell that goes on; the root becomes its child.
    shell = session.start("sh", "-c", f'{session.stasis} restore -D {images} -o restore.log -v4 -d -S; echo $? > {images}/status;'
                          f' while :; do sleep 1; done')
    status = harness.wait_until(lambda: harness.read(f"{images}/status", "").strip(), "the restore does not end")
    harness.require(status == "0", harness.read(f"{images}/restore.log", ""))
    harness.require(harness.is_alive(pid) and parent_of(pid) == shell, "the root is no child of the caller")
    os.kill(shell, signal.SIGKILL)
    session.wait_gone(pid)
    harness.require(os.WTERMSIG(session.statuses[pid]) == signal.SIGKILL, "it did not end by the signal that it asked for")


def case_child(session):
    pid, images = dumped(session)
    run = session.run("restore", "-D", images, "-o", "restore.log", "-v4", "-d", log=os.path.join(images, "restore.log"))
    harness.require(run.status == 0, run.describe())
    harness.require(re.search(rf"Warn .*{pid}.*parent's end.*--restore-sibling", run.log), "nothing is said: " + run.describe())
    harness.require(harness.is_alive(pid) and parent_of(pid) == os.getpid(), "the end of the tool ended the program")


def case_parent_stays(session):
    """A command that is executed stays the parent: nothing is taken away, and its end is the event that was meant."""
    pid, images = dumped(session)
    session.statuses.clear()
    told = session.path("told")
    script = f"kill -0 {pid} && echo alive > {told}"
    run = session.run("restore", "-D", images, "-o", "restore.log", "-v4", "--exec-cmd", "--", "sh", "-c", script,
                      log=os.path.join(images, "restore.log"))
    harness.require(run.status == 0 and not harness.ERROR_LINE.search(run.log), run.describe())
    harness.require(harness.read(told) == "alive\n", "the program was not there for the command")
    session.wait_gone(pid)
    harness.require(os.WTERMSIG(session.statuses[pid]) == signal.SIGKILL, "it did not end by the signal that it asked for")


def case_sibling_in_the_foreground(session):
    _, images = dumped(session)
    run = session.run("restore", "-D", images, "-S")
    harness.check_refusal(run, "BAD_OPTION")


if __name__ == "__main__":
    sys.exit(harness.run_scenarios(globals()))
