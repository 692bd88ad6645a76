#!/usr/bin/env python3
"""Image directories on storage that is full or read-only."""
import os
import subprocess
import sys

import harness
import procview


def expect_refused(session, subject, images, reason, *options):
    before = procview.snapshot(subject.pid)
    run = session.run("dump", "-t", subject.pid, "-D", images, *options)
    harness.check_refusal(run, reason)
    if reason == "IMAGE_WRITE":
        harness.require("holds no dump" in run.stderr, "not told that there is no dump: " + run.stderr)
    procview.compare(before, procview.snapshot(subject.pid), "after a dump to bad storage")
    subject.check()


def case_full(session):
    with session.file_system("size=256k") as images:
        subject = session.subject("mem_anon")  # holds some 6 MiB
        expect_refused(session, subject, images, "IMAGE_WRITE")
        expect_refused(session, subject, images, "IMAGE_WRITE", "-R", "-o", "dump.log")
        left = [name for name in os.listdir(images) if name.endswith(".img")]
        harness.require(not left, f"a failed dump left {left}")
        subprocess.run(["mount", "-o", "remount,size=64m", images], check=True)
        session.dump(subject.pid, images)
        session.wait_gone(subject.pid)
        session.restore(images, "-d")
        subject.finish()


def case_no_inodes(session):
    with session.file_system("nr_inodes=5") as images:
        subject = session.subject("counter")
        expect_refused(session, subject, images, "IMAGE_WRITE")
        subject.finish()


def case_full_work_directory(session):
    """Statistics that find no room do not turn a success into a failure: the tasks are gone by then, and saved."""
    with session.file_system("size=4k") as work:
        with open(os.path.join(work, "filler"), "wb") as file:
            file.write(bytes(4096))
        subject = session.subject("counter")
        images = session.make_directory("images")
        run = session.run("dump", "-t", subject.pid, "-D", images, "-W", work)
        harness.require(run.status == 0, run.describe())
        session.wait_gone(subject.pid)
        run = session.run("restore", "-d", "-D", images, "-W", work, "--pidfile", "pid")
        harness.check_refusal(run, "PIDFILE")
        harness.require(not os.path.exists(f"/proc/{subject.pid}"), "a refused restore left its task")
        run = session.run("restore", "-d", "-D", images, "-W", work)
        harness.require(run.status == 0, run.describe())
        subject.finish()


def case_read_only(session):
    with session.file_system("ro") as images:
        subject = session.subject("counter")
        expect_refused(session, subject, images, "IMAGE_DIR|LOG_FILE")
        expect_refused(session, subject, images, "IMAGE_DIR|LOG_FILE", "-o", "dump.log")
        subject.finish()


if __name__ == "__main__":
    sys.exit(harness.run_scenarios(globals()))
