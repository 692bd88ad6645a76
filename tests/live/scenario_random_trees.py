#!/usr/bin/env python3
"""Process trees made at random come back as they were: relations, states, threads, wait statuses, shared tables.

Each run holds many trees below one root. What a history is made of is in programs/random_trees.c; a failure names the
seed, and `--seed N --runs 1` makes the same tree again.
"""
import argparse
import ctypes
import os
import re
import sys
import time

import harness

KCMP = {"descriptor table": 2, "fs struct": 3}
SYS_KCMP = 312
# What no known order of births leads to is refused: few, and the tree goes on.
MOST_REFUSED = 0.08
LIBC = ctypes.CDLL(None, use_errno=True)


def kcmp(first, second, kind):
    return LIBC.syscall(SYS_KCMP, first, second, kind, 0, 0)


def classes(pids, kind):
    """Lists of processes that share: by the kernel's own order of the objects."""
    found = []
    for pid in pids:
        low, high = 0, len(found)
        while low < high:
            middle = (low + high) // 2
            order = kcmp(found[middle][0], pid, kind)
            if order == 0:
                found[middle].append(pid)
                break
            low, high = (middle + 1, high) if order == 1 else (low, middle)
        else:
            found.insert(low, [pid])
    return sorted(group for group in found if len(group) > 1)


def fields_of(path):
    text = harness.read(path)
    return text[text.rindex(")") + 2:].split() if text else None


def snapshot(root):
    """{what: value} for everything that /proc and kcmp tell about the tree's shape."""
    view, living = {}, []
    for pid in harness.tree_of(root):
        fields = fields_of(f"/proc/{pid}/stat")
        if fields is None:
            continue
        dead = fields[0] in "ZX"
        view[f"{pid} state"] = fields[0] if fields[0] in "ZXT" else "alive"
        view[f"{pid} relations"] = " ".join(fields[1:4]) if pid != root else " ".join(fields[2:4])
        view[f"{pid} exit code"] = fields[49] if dead else "-"
        if dead:
            continue
        living.append(pid)
        view[f"{pid} threads"] = sorted(os.listdir(f"/proc/{pid}/task"))
        status = harness.read(f"/proc/{pid}/status", "")
        view[f"{pid} signals"] = re.findall(r"^(?:SigPnd|ShdPnd|SigBlk|SigIgn|SigCgt):\t(.*)$", status, re.MULTILINE)
        view[f"{pid} descriptors"] = sorted(os.listdir(f"/proc/{pid}/fd"))
    for what, kind in KCMP.items():
        view[f"shared {what}"] = classes(sorted(living), kind)
    return view


def run_one(session, seed, trees, program):
    ready = session.path(f"ready{seed}")
    session.start(program, ready, str(seed), str(trees), "1" if seed % 5 == 0 else "0", stdout=session.path("program.out"))
    root = int(harness.wait_until(lambda: harness.read(ready), "the trees do not get ready"))
    session.reap()
    before = snapshot(root)
    images = session.path(f"images{seed}")
    run = session.dump(root, images, expect_success=False)
    if run.status != 0:
        harness.check_refusal(run, "UNSUPPORTED_STATE")
        harness.require(re.search(r"crosswise|have been above|contradict|order of births", run.stderr), run.describe())
        compare(before, snapshot(root), "after a refused dump")
        end(session, root)
        return 0
    session.wait_gone(root)
    restore(session, images)
    compare(before, snapshot(root), "after the restore")
    own = [pid for pid in harness.children_of(os.getpid()) if pid != root]
    harness.require(not own, f"the restore left processes: {own}")
    end(session, root)
    return sum(1 for what in before if what.endswith(" relations"))


def restore(session, images):
    """Ids are given to other programs of the machine meanwhile; where they are few, one of them may have a pid of ours."""
    def came_back():
        run = session.restore(images, "-d", expect_success=False)
        if run.status == 0 or "[PID_TAKEN]" not in run.stderr:
            harness.check_success(run)
        return run.status == 0

    harness.wait_until(came_back, "ids of the tree stay taken", timeout_s=60, step_s=0.5)


def compare(before, after, moment):
    lines = [f"{what}: {before.get(what, 'absent')} -> {after.get(what, 'absent')}"
             for what in sorted(before.keys() | after.keys()) if before.get(what) != after.get(what)]
    shown = "\n  ".join(lines[:20])
    harness.require(not lines, f"{len(lines)} differences {moment}:\n  {shown}")


def end(session, root):
    for pid in harness.tree_of(root):
        os.kill(pid, 9)
    session.wait_gone(root)
    harness.wait_until(lambda: session.reap() or not harness.children_of(os.getpid()), "processes are left")


def parser(description, what, many):
    """The options of a scenario that makes `many` of `what` below one root, for each of a row of seeds."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--stasis", required=True, type=os.path.abspath)
    made.add_argument("--programs", required=True, type=os.path.abspath)
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--runs", type=int, default=25)
    made.add_argument(f"--{what}", dest="many", type=int, default=many, help="below each root")
    return made


def run_seeds(arguments, program, run):
    """What `run` returns for each seed, each in a session of its own; a failure names its seed."""
    harness.needs_root()
    results = []
    for seed in range(arguments.seed, arguments.seed + arguments.runs):
        with harness.Session(arguments.stasis, harness.default_base()) as session:
            try:
                results.append(run(session, seed, arguments.many, os.path.join(arguments.programs, program)))
            except harness.Failure as failure:
                raise harness.Failure(f"seed {seed}: {failure}") from failure
    return results


def main():
    def work(arguments):
        began = time.monotonic()
        made = run_seeds(arguments, "random_trees", run_one)
        refused = made.count(0)
        print(f"{arguments.runs * arguments.many} trees, {sum(made)} processes, {refused} of {arguments.runs} runs refused,"
              f" {time.monotonic() - began:.1f} s")
        harness.require(refused <= max(1, MOST_REFUSED * arguments.runs), f"{refused} runs were refused")

    return harness.main(work, parser(__doc__, "trees", 20).parse_args())


if __name__ == "__main__":
    sys.exit(main())
