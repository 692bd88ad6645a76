#!/usr/bin/env python3
"""Files that are not what they were at the dump: the restore says which, what changed, and the option that accepts it."""
import os
import sys

import harness


def dumped(session):
    """A subject that was dumped and is gone, and the path of a file that it has open."""
    harness.needs_root()
    subject = session.subject("files_regular")
    session.dump(subject.pid, session.path("images"))
    session.wait_gone(subject.pid)
    return subject, os.path.join(subject.directory, "a")


def expect_refused(session, subject, path, *words, options=()):
    run = session.restore(session.path("images"), "-d", *options, expect_success=False)
    harness.check_refusal(run, "FILE_CHANGED")
    for word in (path, *words):
        harness.require(word in run.stderr, f"no word of {word}: {run.stderr}")
    harness.require(not os.path.exists(f"/proc/{subject.pid}"), "a refused restore left its task")


def case_grown(session):
    subject, path = dumped(session)
    with open(path, "a") as file:
        file.write("more")
    expect_refused(session, subject, path, "20", "24", "--allow-grown")
    session.restore(session.path("images"), "-d", "--allow-grown")
    subject.finish()


def case_shrunk(session):
    subject, path = dumped(session)
    content = open(path, "rb").read()
    os.truncate(path, 10)
    expect_refused(session, subject, path, options=("--allow-grown",))
    with open(path, "r+b") as file:
        file.write(content)
    session.restore(session.path("images"), "-d")
    subject.finish()


def case_log(session):
    """What is open for appending alone may grow without a word."""
    subject, path = dumped(session)
    log = next(name for name in map(os.fsencode, os.listdir(subject.directory)) if name.startswith(b"odd name"))
    with open(os.path.join(os.fsencode(subject.directory), log), "ab") as file:
        file.write(b"more")
    session.restore(session.path("images"), "-d")
    subject.finish()


def case_permissions(session):
    subject, path = dumped(session)
    os.chmod(path, 0o600)
    expect_refused(session, subject, path, "0640", "0600", "--skip-file-rwx-check")
    session.restore(session.path("images"), "-d", "--skip-file-rwx-check")
    subject.finish()


if __name__ == "__main__":
    sys.exit(harness.run_scenarios(globals()))
