"""What /proc shows of a process tree, in a form in which two moments can be compared.

Numbers that a restore cannot and need not keep (inodes of pipes and of nameless memory) are replaced by the order
in which they are met; who shares them with whom stays visible.
"""
import os
import re
import time

import harness

STAT_FIELDS = {"ppid": 4, "pgrp": 5, "session": 6, "tty_nr": 7, "tpgid": 8, "nice": 19, "exit_signal": 38, "threads": 20, "startcode": 26, "endcode": 27,
               "startstack": 28, "rt_priority": 40, "policy": 41, "start_data": 45, "end_data": 46, "start_brk": 47,
               "arg_start": 48, "arg_end": 49, "env_start": 50, "env_end": 51}
STATUS_LINES = ("Umask", "Uid", "Gid", "Groups", "SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt", "CapInh", "CapPrm",
                "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters", "Cpus_allowed", "THP_enabled")
PLAIN_FILES = ("cmdline", "environ", "auxv", "comm", "limits", "oom_score_adj", "coredump_filter", "personality",
               "timerslack_ns", "uid_map", "cgroup")
NAMELESS = re.compile(r"^(pipe|socket):\[(\d+)\]$")
NAMELESS_INSIDE = re.compile(r"\b(pipe|socket):\[(\d+)\]")  # files that are registered with a ring of io_uring
DELETED = " (deleted)"
# Made without a name: called after its inode, which is a new one. And a name that another file has taken meanwhile.
UNNAMED = re.compile(r"/#(\d+) \(deleted\)$")
NAME_TAKEN = re.compile(r"\.ghost\.\d+ \(deleted\)$")
EVENTFD_ID = re.compile(r"^eventfd-id:\s*(\d+)$", re.MULTILINE)
CHANGING_FDINFO = ("ino:", "mnt_id:", "map_id:", "it_value:", "ticks:")
# Set by a write to the page tables or by the kernel's own bookkeeping, not by the program.
# "gu": the kernel looks for guard regions there, whether or not there are any left.
IGNORED_VM_FLAGS = {"sd", "gu"}


class Renamer:
    def __init__(self):
        self.known = {}

    def __call__(self, kind, number):
        numbers = self.known.setdefault(kind, {})
        return f"{kind}#{numbers.setdefault(number, len(numbers))}"


def _link(path, rename):
    try:
        target = os.readlink(path)
    except OSError:
        return None
    match = NAMELESS.match(target)
    if match:
        return rename(match.group(1), match.group(2))
    target = NAME_TAKEN.sub(DELETED, target)
    return UNNAMED.sub(lambda match: rename("/unnamed", match.group(1)), target)


def _lasting_descriptors(pid):
    """The numbers of those that are open for more than a moment, as a program opens a file to write a line."""
    def seen():
        return {(int(fd), _link(f"/proc/{pid}/fd/{fd}", lambda kind, number: number)) for fd in os.listdir(f"/proc/{pid}/fd")}

    first = seen()
    time.sleep(0.001)
    return sorted(fd for fd, link in first & seen() if link is not None)


def _descriptors(pid, rename):
    view = {}
    for fd in _lasting_descriptors(pid):
        info = harness.read(f"/proc/{pid}/fdinfo/{fd}", "")
        info = EVENTFD_ID.sub(lambda match: rename("eventfd", match.group(1)), info)  # one row of numbers for the host
        info = NAMELESS_INSIDE.sub(lambda match: rename(match.group(1), match.group(2)), info)
        lines = [line for line in info.splitlines() if not line.startswith(CHANGING_FDINFO)]
        # What an epoll descriptor watches comes in the order of addresses, with inodes that are new for pipes.
        watched = sorted(line.split(" ino:")[0] for line in lines if line.startswith("tfd:"))
        marked = sorted(line for line in lines if line.startswith("fanotify "))
        lines = [line for line in lines if not line.startswith(("tfd:", "fanotify "))] + watched + marked
        view[f"fd {fd}"] = " ".join([_link(f"/proc/{pid}/fd/{fd}", rename) or "?", *lines])
    return view


def _mappings(pid, rename):
    """Areas with equal, adjoining neighbours merged: (start, end, perms, offset, device, inode, name, flags)."""
    areas = []
    flags = {}
    start = None
    for line in (harness.read(f"/proc/{pid}/smaps") or "").splitlines():
        head = re.match(r"^([0-9a-f]+)-[0-9a-f]+ ", line)
        if head:
            start = int(head.group(1), 16)
        elif line.startswith("VmFlags:"):
            flags[start] = " ".join(flag for flag in line.split()[1:] if flag not in IGNORED_VM_FLAGS)
    for line in (harness.read(f"/proc/{pid}/maps") or "").splitlines():
        span, perms, offset, device, inode, *name = line.split(None, 5)
        first, end = (int(address, 16) for address in span.split("-"))
        offset, name = int(offset, 16), name[0] if name else ""
        is_file = inode != "0"
        if is_file and name.endswith(DELETED):
            inode = rename("deleted", inode)
        if name.startswith("anon_inode:"):
            inode = rename(name, inode)
        last = areas[-1] if areas else None
        kind = (perms, device, inode, name, flags.get(first))
        if last and last[1] == first and last[3] == kind and (not is_file or last[2] + (first - last[0]) == offset):
            areas[-1] = (last[0], end, last[2], kind)
        else:
            areas.append((first, end, offset, kind))
    return {f"area {first:x}-{end:x}": " ".join(filter(None, (kind[0], f"{offset:x}", *kind[1:]))) for first, end, offset, kind in areas}


def _thread(pid, tid, root, workers):
    base = f"/proc/{pid}/task/{tid}"
    view = {"comm": harness.read(f"{base}/comm")}
    for line in harness.read(f"{base}/status", "").splitlines():
        name, _, value = line.partition(":")
        if name in STATUS_LINES:
            view[name] = " ".join(value.split())
    stat = harness.read(f"{base}/stat", "")
    fields = stat[stat.rindex(")") + 2:].split() if stat else []
    for name, number in STAT_FIELDS.items():
        if fields and not (name == "ppid" and pid == root):
            view[name] = fields[number - 3]
            if name == "threads":
                view[name] = str(int(view[name]) - workers)
    view["stopped"] = bool(fields) and fields[0] == "T"
    return {f"thread {tid} {name}": value for name, value in view.items()}


def _threads(pid):
    try:
        return sorted(map(int, os.listdir(f"/proc/{pid}/task")))
    except OSError:
        return []


def _is_worker(pid, tid):
    """A thread that the kernel lends the process for requests of io_uring, and takes away when there are none."""
    return (harness.read(f"/proc/{pid}/task/{tid}/comm") or "").startswith("iou-wrk-")


def snapshot(root):
    """{pid: {what: value}} for the tree below root, zombies included."""
    rename = Renamer()
    view = {}
    for pid in sorted(harness.tree_of(root)):
        state = harness.state_of(pid)
        if state is None:
            continue
        living = [tid for tid in _threads(pid) if tid != pid] if state == "Z" else []
        own = view[pid] = {"zombie": state == "Z", "main thread ended": bool(living)}
        task = living[0] if living else pid  # a main thread that has ended shows nothing of the process
        if state == "Z" and not living:
            stat = harness.read(f"/proc/{pid}/stat")
            fields = stat[stat.rindex(")") + 2:].split()
            own["relations"] = " ".join(fields[1:4] + [fields[38 - 3]])
            continue
        for name in PLAIN_FILES:
            own[name] = harness.read(f"/proc/{task}/{name}")
        for name in ("cwd", "root", "exe"):
            own[name] = _link(f"/proc/{task}/{name}", rename)
        for space in sorted(os.listdir(f"/proc/{task}/ns")):
            if not space.startswith("time"):  # a restored tree may get clocks of its own
                own[f"ns {space}"] = _link(f"/proc/{task}/ns/{space}", rename)
        own.update(_descriptors(task, rename))
        own.update(_mappings(task, rename))
        workers = {tid for tid in _threads(pid) if _is_worker(pid, tid)}
        for tid in _threads(pid):
            if tid not in workers:
                own.update(_thread(pid, tid, root, len(workers)))
    return view


def differences(before, after):
    """Lines that tell what is not the same; empty when nothing differs."""
    lines = []
    for pid in sorted(before.keys() | after.keys()):
        if pid not in after:
            lines.append(f"pid {pid} is missing")
        elif pid not in before:
            lines.append(f"pid {pid} is new: {after[pid].get('cmdline')!r}")
        else:
            old, new = before[pid], after[pid]
            for what in sorted(old.keys() | new.keys()):
                if old.get(what) != new.get(what):
                    lines.append(f"pid {pid}: {what}: {old.get(what, 'absent')!r} -> {new.get(what, 'absent')!r}")
    return lines


def compare(before, after, moment):
    lines = differences(before, after)
    shown = "\n  ".join(lines[:30])
    harness.require(not lines, f"/proc differs {moment} ({len(lines)} lines):\n  {shown}")
