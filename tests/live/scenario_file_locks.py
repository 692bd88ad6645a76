#!/usr/bin/env python3
"""File locks, leases and watches between dump and restore: not asked for, in the way of others, missing files."""
import fcntl
import os
import struct
import sys

import harness


def dumped(session, name, *options):
    subject = session.subject(name)
    images = session.path("images")
    session.dump(subject.pid, images, *options)
    session.wait_gone(subject.pid)
    return subject, images


def refused(session, images, reason, *options):
    run = session.restore(images, "-d", *options, expect_success=False)
    harness.check_refusal(run, reason)
    return run


def case_not_asked_for(session):
    """Images with locks are not restored without them."""
    subject, images = dumped(session, "refuse_file_lock", "--file-locks")
    run = refused(session, images, "FILE_LOCKS_HELD")
    harness.require("--file-locks" in run.stderr, run.describe())
    session.restore(images, "-d", "--file-locks")
    subject.finish()


def case_taken_by_others(session):
    """Somebody else has a lock: he is named, nothing is left, and his lock stays."""
    subject, images = dumped(session, "refuse_file_lock", "--file-locks")
    whole = os.open(os.path.join(subject.directory, "whole"), os.O_RDWR)
    fcntl.flock(whole, fcntl.LOCK_SH | fcntl.LOCK_NB)
    refused(session, images, "FILE_LOCK_TAKEN", "--file-locks")
    fcntl.flock(whole, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(whole)
    record = os.open(os.path.join(subject.directory, "record"), os.O_RDWR)
    fcntl.lockf(record, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 29)
    run = refused(session, images, "FILE_LOCK_TAKEN", "--file-locks")
    harness.require(f"pid {os.getpid()} has one in the way" in run.stderr, run.describe())
    fcntl.lockf(record, fcntl.LOCK_UN)
    # Beside the range of the subject.
    fcntl.lockf(record, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 0)
    session.restore(images, "-d", "--file-locks")
    os.close(record)
    subject.finish()


def case_leased_file_is_open(session):
    """A lease is not taken while others have the file open, and is when they close it."""
    subject, images = dumped(session, "file_leases", "--file-locks")
    writes = os.open(os.path.join(subject.directory, "leased/writes"), os.O_RDONLY)
    refused(session, images, "FILE_LOCK_TAKEN", "--file-locks")
    os.close(writes)
    session.restore(images, "-d", "--file-locks")
    subject.finish()


def case_locks_of_the_format(session):
    """Records as the format has them: flag, type, pid, descriptor, start, length."""
    subject, images = dumped(session, "refuse_file_lock", "--file-locks")
    with open(os.path.join(images, "filelocks.img"), "rb") as file:
        data = file.read()
    harness.require(struct.unpack("<II", data[:8]) == (0x54564319, 0x54323616), "the head of filelocks.img")
    session.restore(images, "-d", "--file-locks")
    subject.finish()


def case_events_given_up(session):
    """Unread events are left out if the user says so; both runs tell."""
    subject, images = dumped(session, "refuse_inotify_unread", "--allow-lossy", "unread-events")
    harness.require("Left out (unread-events)" in harness.read(os.path.join(images, "dump.log")), "the dump tells nothing")
    with open(os.path.join(subject.directory, "lossy"), "w"):
        pass
    run = session.restore(images, "-d")
    harness.require("left out (unread-events)" in run.log, run.describe())
    subject.finish()


def case_watched_file_is_gone(session):
    """A watched directory that does not exist any more is named, before anything is made."""
    subject, images = dumped(session, "inotify_oneshot")
    watched = os.path.join(subject.directory, "watched")
    os.rmdir(watched)
    run = refused(session, images, "FILE_MISSING")
    harness.require(watched in run.stderr, run.describe())
    os.mkdir(watched)
    session.restore(images, "-d")
    subject.finish()


if __name__ == "__main__":
    sys.exit(harness.run_scenarios(globals()))
