#!/usr/bin/env python3
"""Where a tree is restored: below a command, in a pid namespace of its own; pid files and exit statuses."""
import os
import re
import signal
import subprocess
import sys

import harness


def dumped(session, name):
    """A subject that was dumped and is gone."""
    subject = session.subject(name)
    session.dump(subject.pid, session.path("images"))
    session.wait_gone(subject.pid)
    return subject


def number_in(path):
    text = harness.read(path)
    harness.require(text is not None and text.isdigit(), f"{path} holds {text!r}")
    return int(text)


def pids_of(pid):
    """The pids of a task, outside first."""
    text = harness.read(f"/proc/{pid}/status")
    harness.require(text is not None, f"there is no pid {pid}")
    return [int(word) for word in re.search(r"^NSpid:\s*(.*)$", text, re.MULTILINE).group(1).split()]


def parent_of(pid):
    return int(re.search(r"^PPid:\s*(\d+)$", harness.read(f"/proc/{pid}/status"), re.MULTILINE).group(1))


# ---- --exec-cmd -------------------------------------------------------------------------------------------


def case_exec_cmd(session):
    """The command is the parent of the tree, runs after the pid file is there, and its status is that of the restore."""
    harness.needs_root()
    subject = dumped(session, "counter")
    pidfile, told = session.path("root.pid"), session.path("told")
    script = f'echo $$ "$(cat {pidfile})" $(grep PPid: /proc/{subject.pid}/status | cut -f 2) > {told}; kill -TERM {subject.pid}; wait; exit 7'
    run = session.restore(session.path("images"), "--pidfile", pidfile, "--exec-cmd", "--display-stats", "--", "sh", "-c", script,
                          expect_success=False)
    harness.require(run.status == 7, run.describe())
    harness.require("Restored pid" in run.log and not harness.ERROR_LINE.search(run.log), run.describe())
    own, written, parent = map(int, harness.read(told).split())
    harness.require(written == subject.pid, f"the pid file holds {written}")
    harness.require(parent == own, f"the parent of the root is {parent}, and not the command {own}")
    harness.require("Restore statistics" in run.stdout, "no statistics: " + run.describe())
    session.wait_gone(subject.pid)


def case_exec_cmd_mistakes(session):
    harness.needs_root()
    subject = dumped(session, "counter")
    images = session.path("images")
    for options in (("--exec-cmd", "-d", "--", "true"), ("--exec-cmd",), ("--exec-cmd", "--", "no-such-command"),
                    ("--exec-cmd", "--", "/etc/passwd"), ("--exec-cmd", "--new-pid-namespace", "--", "true"),
                    ("--shell-job", "--new-pid-namespace"), ("-d", "--restore-sibling", "--new-pid-namespace")):
        harness.check_refusal(session.restore(images, *options, expect_success=False), "BAD_OPTION")
        harness.require(not os.path.exists(f"/proc/{subject.pid}"), f"{options} left a task")
    session.restore(images, "-d")
    subject.finish()


def case_pidfile(session):
    """A pid file that exists is not overwritten, and nothing is restored; in the foreground it is there while the tree runs."""
    harness.needs_root()
    subject = dumped(session, "counter")
    images, pidfile = session.path("images"), session.path("root.pid")
    with open(pidfile, "w") as file:
        file.write("1")
    for options in ((), ("-d",), ("--new-pid-namespace",), ("-d", "--new-pid-namespace"), ("--exec-cmd", "--", "true")):
        run = session.restore(images, "--pidfile", pidfile, *options, expect_success=False)
        harness.check_refusal(run, "PIDFILE")
        harness.require(harness.read(pidfile) == "1", "the pid file was changed")
        harness.require(not os.path.exists(f"/proc/{subject.pid}"), f"{options} left a task")
    os.unlink(pidfile)
    process = subprocess.Popen([session.stasis, "restore", "-D", images, "-o", "restore.log", "--pidfile", pidfile],
                               stdin=subprocess.DEVNULL)
    harness.wait_until(lambda: os.path.exists(pidfile), "no pid file")
    harness.wait_until(lambda: harness.read(pidfile) == str(subject.pid), "the pid file")
    subject.check(last=True)
    harness.require(process.wait(10) == 0, "the status of the root is not that of the restore")


# ---- --new-pid-namespace ----------------------------------------------------------------------------------


def restore_inside(session, images, *options, name="root.pid"):
    """Restores detached in a new pid namespace: the pid of the root outside."""
    pidfile = session.path(name)
    session.restore(images, "-d", "--new-pid-namespace", "--pidfile", pidfile, *options)
    return number_in(pidfile)


def case_namespace_subjects(session):
    """Subjects find themselves as they were, with their old pids, below an init that ends with the last of them."""
    harness.needs_root()
    for name in ("counter", "threads", "zombies", "sleep_restart", "sigpending", "tree_cow", "cow"):
        subject = session.subject(name, directory=name)
        images = session.path("images-" + name)
        session.dump(subject.pid, images)
        session.wait_gone(subject.pid)
        outside = restore_inside(session, images, name=name + ".pid")
        pids = pids_of(outside)
        harness.require(pids == [outside, subject.pid], f"{name}: pids {pids}")
        init = parent_of(outside)
        harness.require(pids_of(init)[1:] == [1], f"{name}: the parent is {pids_of(init)}")
        harness.require(harness.read(f"/proc/{init}/cmdline") == "stasis-init\0", "init is another program")
        harness.require(len(os.listdir(f"/proc/{init}/fd")) == 0, "init holds files")
        subject.check()
        subject.check(last=True)
        session.wait_gone(outside)
        session.wait_gone(init)


def case_pids_taken(session):
    """Two more copies of a program that still runs."""
    harness.needs_root()
    pid = session.start("sleep", "1000")
    harness.wait_until(lambda: harness.read(f"/proc/{pid}/comm") == "sleep\n", "no sleep")
    images = session.path("images")
    session.dump(pid, images, "-R")
    run = session.restore(images, "-d", expect_success=False)
    harness.check_refusal(run, "PID_TAKEN")
    harness.require("--new-pid-namespace" in run.stderr, "no remedy: " + run.describe())
    copies = [restore_inside(session, images, name=f"{i}.pid") for i in range(2)]
    for copy in copies:
        harness.require(pids_of(copy) == [copy, pid], f"pids {pids_of(copy)}")
    inits = [parent_of(copy) for copy in copies]
    # The end of an init ends its tasks, and nothing else.
    os.kill(inits[0], signal.SIGKILL)
    session.wait_gone(copies[0])
    harness.require(harness.is_alive(copies[1]) and harness.is_alive(pid), "others ended, too")
    os.kill(copies[1], signal.SIGTERM)
    session.wait_gone(inits[1])


def case_namespace_foreground(session):
    """The exit status of the root, after the last task; signals are passed on."""
    harness.needs_root()
    subject = dumped(session, "counter")
    images, pidfile = session.path("images"), session.path("root.pid")

    def start():
        session.statuses.clear()  # its pid inside is that of the one that was dumped
        process = subprocess.Popen([session.stasis, "restore", "-D", images, "-o", "restore.log", "--new-pid-namespace", "--pidfile",
                                    pidfile], stdin=subprocess.DEVNULL)
        harness.wait_until(lambda: harness.read(pidfile, "").isdigit(), "no pid file")
        return process, number_in(pidfile)

    saved = subject.save_files()
    process, outside = start()
    harness.require(pids_of(outside) == [outside, subject.pid], f"pids {pids_of(outside)}")
    subject.check()
    process.send_signal(signal.SIGTERM)
    harness.require(process.wait(10) == 128 + signal.SIGTERM, f"status {process.returncode}")
    session.wait_gone(outside)
    os.unlink(pidfile)
    subject.put_back_files(saved)
    process, outside = start()
    subject.check(last=True)
    harness.require(process.wait(10) == 0, f"status {process.returncode}")


def case_namespace_orphans(session):
    """The tree lives on without its root; what ends below init is collected."""
    harness.needs_root()
    pid = session.start("sh", "-c", "sleep 1001 & sleep 1002 & wait")
    harness.wait_until(lambda: len(harness.children_of(pid)) == 2, "no children")
    images = session.path("images")
    session.dump(pid, images)
    session.wait_gone(pid)
    outside = restore_inside(session, images)
    init = parent_of(outside)
    children = harness.children_of(outside)
    os.kill(outside, signal.SIGKILL)
    session.wait_gone(outside)
    harness.wait_until(lambda: sorted(harness.children_of(init)) == sorted(children), "init has not taken the orphans")
    os.kill(children[0], signal.SIGKILL)
    session.wait_gone(children[0])
    harness.require(harness.is_alive(init), "init ended before the last task")
    os.kill(children[1], signal.SIGKILL)
    session.wait_gone(init)


def case_namespace_failure(session):
    """A restore that fails leaves nothing, and says so once."""
    harness.needs_root()
    dumped(session, "counter")
    images = session.path("images")
    os.unlink(os.path.join(images, "pages-1.img"))
    for options in ((), ("-d",)):
        run = session.restore(images, "--new-pid-namespace", *options, expect_success=False)
        harness.check_refusal(run, "IMAGE_.*")


if __name__ == "__main__":
    sys.exit(harness.run_scenarios(globals()))
