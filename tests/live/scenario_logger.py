#!/usr/bin/env python3
"""A script under nohup, dumped and restored from a shell with the images in the current directory."""
import os
import re
import signal
import sys
import time

import harness
import terminal

LOGGER = """\
import datetime, time
number = 0
while True:
    number += 1
    print(f"{number} {datetime.datetime.now().timestamp():.3f}", flush=True)
    time.sleep(0.1)
"""
GAP_S = 1.0


def lines_of(path):
    return [(int(number), float(stamp)) for number, stamp in re.findall(r"^(\d+) ([0-9.]+)$", harness.read(path, ""), re.MULTILINE)]


def case_nohup(session):
    harness.needs_root()
    output = session.path("nohup.out")
    with open(session.path("logger.py"), "w") as file:
        file.write(LOGGER)
    term = terminal.Terminal(session, session.directory)
    term.command("nohup /usr/bin/python3 logger.py &")
    harness.wait_until(lambda: len(lines_of(output)) > 5, "the logger writes nothing")
    pid = int(re.search(r"pid (\d+)", term.command("echo pid $!")).group(1))
    shown = term.command(f"{session.stasis} dump --shell-job -t {pid}; echo status=$?")
    harness.require("status=0" in shown, f"dump: {shown}")
    session.wait_gone(pid) if pid in harness.children_of(os.getpid()) else harness.wait_until(
        lambda: not harness.is_alive(pid), "the dumped task does not end")
    before = len(lines_of(output))
    time.sleep(GAP_S)
    harness.require(len(lines_of(output)) == before, "something still writes to the log")
    term.command("wait 2> /dev/null; true")
    harness.require(not os.path.exists(f"/proc/{pid}"), "the shell did not collect its job")

    term.command(f"nohup {session.stasis} restore --shell-job > restore.out 2>&1 &")
    harness.wait_until(lambda: len(lines_of(output)) > before + 5,
                       f"the log does not go on: {harness.read(session.path('restore.out'))}")
    lines = lines_of(output)
    numbers = [number for number, _ in lines]
    harness.require(numbers == list(range(1, len(numbers) + 1)), f"numbers are missing or repeated: {numbers}")
    gaps = [later[1] - earlier[1] for earlier, later in zip(lines, lines[1:])]
    harness.require(max(gaps) > GAP_S and gaps.index(max(gaps)) == before - 1, f"the gap is not where it should be: {gaps}")
    harness.require(harness.is_alive(pid), f"pid {pid} is not there")
    os.kill(pid, signal.SIGKILL)
    term.close()


if __name__ == "__main__":
    sys.exit(harness.run_scenarios(globals()))
