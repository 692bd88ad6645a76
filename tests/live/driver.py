#!/usr/bin/env python3
"""Runs one subject through one mode.

  none       no checkpoint: the subject must pass by itself first
  restore    dump, restore -d, compare /proc, check
  running    dump --leave-running, check; end it; restore the same images, check
  cycles     three times dump and restore, with a check after each
  stopped    dump --leave-stopped and restore --leave-stopped: all stand, SIGCONT lets them go on
  shell_job  the root is no session leader: refused without -j, kept with it
  refused    the dump is refused with a reason, and the subject goes on unharmed
  honest     refused as above, or saved and restored correctly
"""
import argparse
import os
import signal
import sys
import time

import catalog
import harness
import procview


def snapshot(entry, subject):
    return procview.snapshot(subject.pid) if entry.compares else {}


def cycle(session, entry, subject, number, options=()):
    """One dump and one restore, compared."""
    images = session.path(f"images{number}")
    before = snapshot(entry, subject)
    session.dump(subject.pid, images, *entry.options, *options)
    session.wait_gone(subject.pid)
    time.sleep(entry.gap_s)
    restore(session, entry, subject, images, before, options)


def restore(session, entry, subject, images, before, options=()):
    pidfile = images + ".pid"
    if os.path.exists(pidfile):
        os.unlink(pidfile)
    session.restore(images, "-d", "--pidfile", pidfile, *entry.options, *options)
    harness.require(harness.read(pidfile) == str(subject.pid), f"the pid file holds {harness.read(pidfile)!r}")
    procview.compare(before, snapshot(entry, subject), "after the restore")
    own = [pid for pid in harness.children_of(os.getpid()) if pid != subject.pid]
    harness.require(not own, f"the restore left processes: {own}")


def mode_none(session, entry, subject):
    before = snapshot(entry, subject)
    time.sleep(0.05)
    procview.compare(before, snapshot(entry, subject), "although nothing was done")
    subject.check()
    subject.check()
    subject.finish()


def mode_restore(session, entry, subject):
    cycle(session, entry, subject, 1)
    subject.finish()


def mode_running(session, entry, subject):
    images = session.path("images")
    before = snapshot(entry, subject)
    generation, files = subject.generation, subject.save_files()
    session.dump(subject.pid, images, "-R", *entry.options)
    procview.compare(before, snapshot(entry, subject), "after a dump that leaves the tree running")
    subject.check()
    subject.check()
    subject.kill()
    if not entry.replays:
        return
    subject.put_back_files(files)
    subject.generation = generation
    restore(session, entry, subject, images, before)
    subject.finish()


def mode_cycles(session, entry, subject):
    for number in range(3):
        cycle(session, entry, subject, number)
        if number < 2:
            subject.check()
    subject.finish()


def expect_stopped(subject):
    pids = harness.tree_of(subject.pid)
    harness.wait_until(lambda: all(harness.state_of(pid) == "T" for pid in pids), "the tree is not stopped", timeout_s=5)
    return pids


def go_on(pids):
    for pid in pids:
        os.kill(pid, signal.SIGCONT)


def mode_stopped(session, entry, subject):
    images = session.path("images")
    session.dump(subject.pid, images, "-s", *entry.options)
    go_on(expect_stopped(subject))
    subject.check()
    before = snapshot(entry, subject)
    session.dump(subject.pid, session.path("second"), *entry.options)
    session.wait_gone(subject.pid)
    session.restore(session.path("second"), "-d", "-s", *entry.options)
    go_on(expect_stopped(subject))
    harness.wait_until(lambda: harness.state_of(subject.pid) != "T", "SIGCONT does not let the tree go on")
    procview.compare(before, snapshot(entry, subject), "after a restore that leaves the tree stopped")
    subject.finish()


def mode_shell_job(session, entry, subject):
    run = session.dump(subject.pid, session.path("refused"), expect_success=False)
    harness.check_refusal(run, "NOT_SESSION_LEADER")
    subject.check()
    cycle(session, entry, subject, 1, options=("-j",))
    subject.finish()


def expect_unharmed(session, entry, subject, before, run):
    harness.check_refusal(run, entry.reason)
    procview.compare(before, snapshot(entry, subject), "after a refused dump")
    subject.check()


def mode_refused(session, entry, subject):
    for number, option in enumerate(((), ("-R",))):
        before = snapshot(entry, subject)
        run = session.dump(subject.pid, session.path(f"images{number}"), *option, *entry.options, expect_success=False)
        expect_unharmed(session, entry, subject, before, run)
    subject.finish()


def mode_honest(session, entry, subject):
    before = snapshot(entry, subject)
    run = session.dump(subject.pid, session.path("images"), "-R", expect_success=False)
    if run.status != 0:
        expect_unharmed(session, entry, subject, before, run)
        print(f"refused: {harness.REASON_CODE.findall(run.stderr)[0]}")
    else:
        subject.check()
        cycle(session, entry, subject, 1)
    subject.finish()


MODES = {name.removeprefix("mode_"): function for name, function in globals().items() if name.startswith("mode_")}


def run_one(arguments):
    entry = catalog.BY_NAME[arguments.subject]
    if arguments.mode != "none":
        harness.needs_root()
    with harness.Session(arguments.stasis, arguments.base) as session:
        subject = harness.Subject(session, os.path.join(arguments.subjects, entry.name),
                                  new_session=arguments.mode != "shell_job")
        MODES[arguments.mode](session, entry, subject)


def list_tests():
    """One line for each test: NAME MODE TIMEOUT, read by CMake."""
    for entry in catalog.ENTRIES:
        for mode in entry.modes:
            print(entry.name, mode, entry.timeout_s)
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stasis", help="the binary under test")
    parser.add_argument("--subjects", help="directory of the subject programs")
    parser.add_argument("--base", default=harness.default_base(), help="where scratch directories go")
    parser.add_argument("--mode", choices=MODES, default="none")
    parser.add_argument("--list", action="store_true", help="list all tests")
    parser.add_argument("subject", nargs="?", choices=catalog.BY_NAME)
    arguments = parser.parse_args()
    if arguments.list:
        return list_tests()
    if not arguments.subject or not arguments.subjects:
        parser.error("a subject and --subjects are needed")
    return harness.main(run_one, arguments)


if __name__ == "__main__":
    sys.exit(main())
