#!/usr/bin/env python3
"""Inside of a guest with AppArmor: profiles that are not there at the restore, and other ones in their place."""
import os
import subprocess
import sys

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(SOURCE, "tests", "live"))
import harness  # noqa: E402

PARSER = os.path.join(SOURCE, "build-guest-kernel", "sbin", "apparmor_parser")
PROFILES = os.path.join(SOURCE, "tests", "guest", "apparmor_profiles")
CONFINED = "import os, time; open('/proc/self/attr/apparmor/current', 'w').write('changeprofile stasis_test'); time.sleep(1000)"


def parser(action):
    subprocess.run([PARSER, "-K", action, PROFILES], check=True, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def label(pid):
    return harness.read(f"/proc/{pid}/attr/apparmor/current").strip()


def saved(session):
    pid = session.start(sys.executable, "-c", CONFINED)
    harness.wait_until(lambda: label(pid) == "stasis_test (enforce)", "it does not change its profile")
    session.dump(pid, session.path("images"))
    session.wait_gone(pid)
    return pid, session.path("images")


def case_restored(session):
    pid, images = saved(session)
    session.restore(images, "-d")
    harness.require(label(pid) == "stasis_test (enforce)", label(pid))


def case_missing_profile(session):
    pid, images = saved(session)
    parser("-R")
    try:
        run = session.restore(images, "-d", expect_success=False)
        harness.check_refusal(run, "FILE_MISSING")
        harness.require("stasis_test" in run.stderr and "apparmor_parser" in run.stderr, run.describe())
        harness.require(not os.path.exists(f"/proc/{pid}"), "a half restored task is left")
    finally:
        parser("-r")
    session.restore(images, "-d")


def case_other_profile(session):
    pid, images = saved(session)
    harness.check_refusal(session.restore(images, "-d", "--lsm-profile", "selinux:x", expect_success=False), "BAD_OPTION")
    session.restore(images, "-d", "--lsm-profile", "apparmor:stasis_strict")
    harness.require(label(pid) == "stasis_strict (enforce)", label(pid))


if __name__ == "__main__":
    sys.exit(harness.run_scenarios(globals()))
