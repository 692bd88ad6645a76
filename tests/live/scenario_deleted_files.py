#!/usr/bin/env python3
"""Deleted files: what options decide, and restores that fail. Nothing is left in the directories where they were."""
import contextlib
import os
import subprocess
import sys

import harness
import procview


def names_below(directory):
    return sorted(os.path.join(path, name) for path, directories, files in os.walk(directory)
                  for name in directories + files if name not in ("check", "result"))


def expect_failed_restore(session, subject, images, reason):
    before = names_below(subject.directory)
    run = session.restore(images, "-d", expect_success=False)
    harness.check_refusal(run, reason)
    harness.require(names_below(subject.directory) == before, f"left behind: {set(names_below(subject.directory)) - set(before)}")
    harness.require(not os.path.exists(f"/proc/{subject.pid}"), "a failed restore left its task")
    return run


def case_no_room(session):
    with session.file_system("size=4m") as disk:
        subject = session.subject("ghost_files", directory="storage/subject")
        images = session.path("images")
        session.dump(subject.pid, images)
        session.wait_gone(subject.pid)
        with open(os.path.join(disk, "filler"), "wb", buffering=0) as filler, contextlib.suppress(OSError):
            while True:
                filler.write(bytes(4096))
        run = expect_failed_restore(session, subject, images, "RESTORE_CALL_FAILED")
        harness.require("ENOSPC" in run.stderr and "free space" in run.stderr, run.stderr)
        os.unlink(os.path.join(disk, "filler"))
        session.restore(images, "-d")
        subject.finish()


def case_read_only(session):
    with session.file_system("size=4m") as disk:
        subject = session.subject("ghost_nodes", directory="storage/subject")
        images = session.path("images")
        session.dump(subject.pid, images)
        session.wait_gone(subject.pid)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        expect_failed_restore(session, subject, images, "RESTORE_CALL_FAILED")
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        session.restore(images, "-d")
        subject.finish()


def case_later_failure(session):
    """The files are made when a later step fails: a pid file that cannot be written."""
    harness.needs_root()
    subject = session.subject("ghost_nodes")
    images = session.path("images")
    session.dump(subject.pid, images)
    session.wait_gone(subject.pid)
    before = names_below(subject.directory)
    run = session.restore(images, "-d", "--pidfile", "/proc/none", expect_success=False)
    harness.check_refusal(run, "PIDFILE")
    harness.require(names_below(subject.directory) == before, "a failed restore left files")
    session.restore(images, "-d")
    subject.finish()


def case_limit(session):
    harness.needs_root()
    subject = session.subject("ghost_files")
    before = procview.snapshot(subject.pid)
    run = session.dump(subject.pid, session.path("small"), "-R", "--ghost-limit", "100K", expect_success=False)
    harness.check_refusal(run, "FILE_UNREACHABLE")
    harness.require("every second" in run.stderr and "--ghost-limit" in run.stderr and "409600" in run.stderr, run.stderr)
    procview.compare(before, procview.snapshot(subject.pid), "after a refused dump")
    subject.check()
    # Holes do not count.
    session.dump(subject.pid, session.path("images"), "--ghost-limit", "400K")
    session.wait_gone(subject.pid)
    session.restore(session.path("images"), "-d")
    subject.finish()


def case_extent_map(session):
    """Found by the extent map or by seeking, holes are the same."""
    harness.needs_root()
    directory = "/var/tmp"
    for option in ("--ghost-fiemap", "--no-ghost-fiemap"):
        with harness.Session(session.stasis, directory) as inner:
            inner.subjects = session.subjects
            subject = inner.subject("ghost_files")
            before = procview.snapshot(subject.pid)
            inner.dump(subject.pid, inner.path("images"), option)
            inner.wait_gone(subject.pid)
            inner.restore(inner.path("images"), "-d")
            procview.compare(before, procview.snapshot(subject.pid), "after the restore")
            subject.finish()


def links_in(subject):
    return [name for name in os.listdir(subject.directory) if name.startswith("link_remap")]


def case_link_remap(session):
    harness.needs_root()
    subject = session.subject("link_remap")
    before = procview.snapshot(subject.pid)
    run = session.dump(subject.pid, session.path("refused"), expect_success=False)
    harness.check_refusal(run, "FILE_UNREACHABLE")
    harness.require("--link-remap" in run.stderr and "gone" in run.stderr, run.stderr)
    subject.check()
    # A dump that fails later takes its links away.
    run = session.dump(subject.pid, session.path("full"), "--link-remap", expect_success=False,
                       wrapper=("sh", "-c", "trap '' XFSZ; ulimit -f 1; exec \"$@\"", "sh"))
    harness.check_refusal(run, "IMAGE_WRITE|LOG_FILE")
    harness.require(not links_in(subject), f"a failed dump left {links_in(subject)}")
    subject.check()
    for number in range(3):
        images = session.path(f"images{number}")
        session.dump(subject.pid, images, "--link-remap")
        session.wait_gone(subject.pid)
        harness.require(len(links_in(subject)) == 3, f"links: {links_in(subject)}")
        if number == 0:
            expect_failed_pidfile(session, subject, images)
        session.restore(images, "-d", "--link-remap")
        harness.require(not links_in(subject), f"a restore left {links_in(subject)}")
        procview.compare(before, procview.snapshot(subject.pid), "after the restore")
        subject.check()
    subject.finish()


def expect_failed_pidfile(session, subject, images):
    """The links stay for the next try."""
    run = session.restore(images, "-d", "--pidfile", "/proc/none", expect_success=False)
    harness.check_refusal(run, "PIDFILE")
    harness.require(len(links_in(subject)) == 3, f"links: {links_in(subject)}")


def case_link_remap_running(session):
    harness.needs_root()
    subject = session.subject("link_remap")
    images = session.path("images")
    session.dump(subject.pid, images, "-R", "--link-remap")
    files = subject.save_files()
    subject.check()
    subject.kill()
    subject.put_back_files(files)
    subject.generation = 0
    session.restore(images, "-d")
    harness.require(not links_in(subject), f"a restore left {links_in(subject)}")
    subject.finish()


if __name__ == "__main__":
    sys.exit(harness.run_scenarios(globals()))
