#!/usr/bin/env python3
"""Restores as on a kernel with another vdso: the functions of the old one jump into the present one, which is mapped
elsewhere. Addresses stay good, nothing piles up over cycles, and a restore on the same kernel changes nothing."""
import os
import sys

import harness
import procview

CYCLES = 4
BASH_LOOP = "i=0; while :; do i=$((i + 1)); echo $i $EPOCHSECONDS; sleep 0.02; done"


def areas(pid):
    """(start, end, permissions, name) of all mappings, neighbours that differ in name only merged."""
    found = []
    for line in harness.read(f"/proc/{pid}/maps").splitlines():
        span, perms, _, _, inode, *name = line.split(None, 5)
        start, end = (int(part, 16) for part in span.split("-"))
        name = name[0] if name else ""
        if name == "[vsyscall]":
            continue
        if found and inode == "0" and found[-1][1] == start and found[-1][2] == perms and \
                found[-1][3].startswith("[vvar") and name.startswith("[vvar"):
            found[-1][1] = end
        else:
            found.append([start, end, perms, name])
    return [tuple(area) for area in found]


def places(pid):
    return [area[:3] for area in areas(pid)]


def fault(number=127):
    return dict(os.environ, CRIU_FAULT=str(number))


def cycle(session, pid, name, *options, jumps):
    images = session.path(name)
    session.dump(pid, images, *options)
    session.wait_gone(pid)
    session.restore(images, "-d", *options, env=fault() if jumps else None)


def check_places(pid, before, jumps):
    now = places(pid)
    missing = [area for area in before if area not in now]
    harness.require(not missing, f"these are not mapped any more: {missing}; {areas(pid)}")
    extra = [area for area in now if area not in before]
    harness.require(len(extra) == (2 if jumps else 0), f"these are new: {extra}")


def case_jumps(session):
    harness.needs_root()
    subject = session.subject("vdso_calls")
    before = places(subject.pid)
    for number in range(CYCLES):
        cycle(session, subject.pid, f"jumps{number}", jumps=True)
        check_places(subject.pid, before, jumps=True)
        subject.check()
    session.dump(subject.pid, session.path("running"), "-R")
    check_places(subject.pid, before, jumps=True)
    subject.check()
    view = procview.snapshot(subject.pid)
    cycle(session, subject.pid, "as_it_is", jumps=False)
    procview.compare(view, procview.snapshot(subject.pid), "after a restore on the same kernel")
    subject.finish()


def case_trees(session):
    """Children have the vdso of their parents, jumps and all; pages that were shared still are."""
    harness.needs_root()
    subject = session.subject("tree_cow")
    pids = harness.tree_of(subject.pid)
    before = {pid: places(pid) for pid in pids}
    for number in range(3):
        cycle(session, subject.pid, f"images{number}", jumps=True)
        for pid in pids:
            check_places(pid, before[pid], jumps=True)
        subject.check()
    subject.finish()


def case_without_vdso(session):
    harness.needs_root()
    subject = session.subject("vdso_gone")
    before = places(subject.pid)
    cycle(session, subject.pid, "images", jumps=True)
    check_places(subject.pid, before, jumps=False)
    subject.finish()


def case_programs_started_later(session):
    """A shell with jumps starts programs that have the vdso of the kernel."""
    harness.needs_root()
    out = session.path("out")
    pid = session.start("bash", "-c", BASH_LOOP, stdout=out)
    count = lambda: len(harness.read(out, "").splitlines())
    for number in range(4):
        had = count()
        harness.wait_until(lambda: count() > had + 3, "the shell does not go on")
        cycle(session, pid, f"images{number}", jumps=number < 3)
    had = count()
    harness.wait_until(lambda: count() > had + 3, "the shell does not go on")
    numbers = [int(line.split()[0]) for line in harness.read(out).splitlines()]
    harness.require(numbers == list(range(1, len(numbers) + 1)), "numbers are missing or repeated")


def case_32_bit_program(session):
    """It has the vdso of its width back in its place, and is refused where that is another one."""
    harness.needs_root()
    out = session.path("out")
    pid = session.start(os.path.join(session.programs, "sleeper_ia32"), stdout=out)

    def expect_alive():
        had = len(harness.read(out, ""))
        harness.wait_until(lambda: len(harness.read(out, "")) > had + 3, "the program does not go on")

    expect_alive()
    before = places(pid)
    for number in range(2):
        cycle(session, pid, f"images{number}", jumps=False)
        check_places(pid, before, jumps=False)
        expect_alive()
    images = session.path("images")
    session.dump(pid, images)
    session.wait_gone(pid)
    run = session.run("restore", "-D", images, "-d", env=fault())
    harness.require(harness.check_refusal(run) == "IMAGE_UNSUPPORTED", run.describe())
    harness.require(not os.path.exists(f"/proc/{pid}"), "the refused restore left a process")
    session.restore(images, "-d")
    expect_alive()


def case_number_of_the_fault(session):
    for text in ("126", "7", "x", "1x"):
        run = session.run("check", env=dict(os.environ, CRIU_FAULT=text))
        harness.require(harness.check_refusal(run) == "BAD_OPTION", run.describe())


if __name__ == "__main__":
    sys.exit(harness.run_scenarios(globals()))
