#!/usr/bin/env python3
"""On Debian's own kernel (6.1, emulated), which has soft-dirty, security modules and every capability, and lacks
PAGEMAP_SCAN, pidfds of threads, mseal and much else: what is there for want of these, and that nothing is missed."""
import os
import re
import sys

import harness

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(SOURCE, "tests", "guest"))
import guest  # noqa: E402

KERNEL = os.path.join(SOURCE, "build-guest-kernel")
TIMEOUT_S = 600
# One of each kind of state, and all that depends on the age of the kernel; nothing that is to be right to a
# millisecond, which an emulated machine is not.
ROWS = ("counter.running", "threads.cycles", "cow.restore", "vma_kinds.restore", "shared_objects.restore", "memfd.restore",
        "sigpending.restore", "session_tree.restore", "seccomp_tree.restore", "pipes.running",
        "sem_undo.restore", "mem_locks.restore", "ia32_threads.restore", "clocks.restore")


def run_guest(command):
    harness.needs_root()
    try:
        output, status = guest.run(KERNEL, command, TIMEOUT_S)
    except guest.Missing as missing:
        raise harness.Skip(f"this machine lacks: {missing}") from missing
    harness.require(status is not None, f"the guest never came to an end:\n{harness.tail(output)}")
    return output, status


PARSER = os.path.join(KERNEL, "sbin", "apparmor_parser")
PROFILES = os.path.join(SOURCE, "tests", "guest", "apparmor_profiles")


def run_rows(session, rows, before="true"):
    driver = os.path.join(SOURCE, "tests", "live", "driver.py")
    runner = os.path.join(SOURCE, "tests", "guest", "guest_rows.py")
    output, status = run_guest(f"echo; uname -r; {before} && {sys.executable} -B {runner} {driver} --stasis={session.stasis} "
                               f"--subjects={session.subjects} {' '.join(rows)}")
    harness.require(re.search(r"^6\.1\.", output, re.MULTILINE), f"another kernel than wanted:\n{harness.tail(output)}")
    passed = re.findall(r"^(\S+): passed", output, re.MULTILINE)
    harness.require(status == 0 and set(rows) <= set(passed),
                    f"not passed: {sorted(set(rows) - set(passed))}\n{harness.tail(output, 80)}")


def case_kinds_of_state(session):
    run_rows(session, ROWS)


def case_apparmor(session):
    if not os.access(PARSER, os.X_OK):
        raise harness.Skip("this machine lacks: a compiler of AppArmor profiles (./dev setup guest)")
    load = f"{PARSER} -K -r {PROFILES}"
    scenario = os.path.join(SOURCE, "tests", "guest", "scenario_apparmor.py")
    run_rows(session, ("security_label.running", "security_label.cycles"),
             f"{load} && {sys.executable} -B {scenario} --stasis {session.stasis} --subjects . --programs .")


if __name__ == "__main__":
    sys.exit(harness.run_scenarios(globals()))
