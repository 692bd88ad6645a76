#!/usr/bin/env python3
"""Open files made at random come back as they were: numbers, flags, positions, who shares what, what lies in pipes.

Each run holds many graphs below one root. What a graph is made of is in programs/random_graphs.c; a failure names the
seed, and `--seed N --runs 1` makes the same graphs again.
"""
import ctypes
import fcntl
import functools
import hashlib
import os
import re
import struct
import sys
import termios
import time

import harness
import scenario_random_trees as trees

KCMP_FILE = 0
LIBC = ctypes.CDLL(None, use_errno=True)
# What the restore gives anew: numbers of inodes and mounts, and what goes on meanwhile.
CHANGING = re.compile(r"^(ino|mnt_id|it_value|ticks|eventfd-id):.*$|(?<= ino:)[0-9a-f]+(?= )", re.MULTILINE)


def kcmp_file(first, second):
    order = LIBC.syscall(trees.SYS_KCMP, first[0], second[0], KCMP_FILE, first[1], second[1])
    harness.require(order in (0, 1, 2), f"kcmp cannot compare {first} and {second}")
    return {0: 0, 1: -1, 2: 1}[order]


def content(path):
    """What can be read from a pipe, in the pieces in which it would be read; nothing is taken out of it."""
    source = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    out, into = os.pipe2(os.O_NONBLOCK)
    pieces = []
    try:
        size, = struct.unpack("i", fcntl.ioctl(source, termios.FIONREAD, b"\0" * 4))
        if size > 0:
            fcntl.fcntl(into, 1031, 1 << 20)  # F_SETPIPE_SZ
            harness.require(LIBC.tee(source, into, ctypes.c_size_t(1 << 20), 2) == size, f"tee of {path}")
            while True:
                try:
                    pieces.append(os.read(out, 1 << 20))
                except BlockingIOError:
                    break
    finally:
        for fd in (source, out, into):
            os.close(fd)
    return [(len(piece), hashlib.sha1(piece).hexdigest()[:8]) for piece in pieces]


def snapshot(root):
    view, everything, pipes, inodes = {}, [], {}, {}
    for pid in harness.tree_of(root):
        for number in sorted(map(int, os.listdir(f"/proc/{pid}/fd"))):
            everything.append((pid, number))
            link = os.readlink(f"/proc/{pid}/fd/{number}")
            info = harness.read(f"/proc/{pid}/fdinfo/{number}")
            if link.startswith("pipe:") or "fifo." in link:
                inode = os.stat(f"/proc/{pid}/fd/{number}").st_ino
                name = f"pipe {inodes.setdefault(inode, len(inodes))}"
                link = name if link.startswith("pipe:") else f"{name} {link}"
                if "flags:\t0" in info and not int(re.search(r"^flags:\t(\d+)", info, re.MULTILINE)[1], 8) & os.O_PATH:
                    pipes.setdefault(name, f"/proc/{pid}/fd/{number}")
            view[f"{pid} fd {number}"] = (link, sorted(filter(None, CHANGING.sub("", info).splitlines())))
    everything.sort(key=functools.cmp_to_key(kcmp_file))
    shared = [everything[:1]]
    for last, now in zip(everything, everything[1:]):
        if kcmp_file(last, now) == 0:
            shared[-1].append(now)
        else:
            shared.append([now])
    for group in shared:
        if len(group) > 1:
            view[f"one open file, {min(group)}"] = sorted(group)
    for name, path in pipes.items():
        view[f"in {name}, {path}"] = content(path)
    view["shared tables"] = trees.classes(sorted({pid for pid, _ in everything}), trees.KCMP["descriptor table"])
    return view


def run_one(session, seed, graphs, program):
    ready, files = session.path(f"ready{seed}"), session.make_directory(f"files{seed}")
    session.start(program, ready, files, str(seed), str(graphs), stdout=session.path("program.out"))
    root = int(harness.wait_until(lambda: harness.read(ready), "the graphs do not get ready", timeout_s=60))
    session.reap()
    before = snapshot(root)
    trees.compare(before, snapshot(root), "although nothing was done")
    if seed % 4 == 0:
        session.dump(root, session.path(f"live{seed}"), "-R")
        trees.compare(before, snapshot(root), "after a dump that leaves the tree running")
    images = session.path(f"images{seed}")
    session.dump(root, images)
    session.wait_gone(root)
    trees.restore(session, images)
    trees.compare(before, snapshot(root), "after the restore")
    trees.end(session, root)
    return len(before)


def main():
    def work(arguments):
        began = time.monotonic()
        compared = sum(trees.run_seeds(arguments, "random_graphs", run_one))
        print(f"{arguments.runs * arguments.many} graphs, {compared} things compared, {time.monotonic() - began:.1f} s")

    return harness.main(work, trees.parser(__doc__, "graphs", 20).parse_args())


if __name__ == "__main__":
    sys.exit(main())
