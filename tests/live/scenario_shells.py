#!/usr/bin/env python3
"""Everyday programs: a shell script with children, Python with threads, a tree of sleeps; pid files, final states,
and the exit status of a restore that waits."""
import os
import re
import signal
import subprocess
import sys

import harness
import procview

SCRIPT = """\
i=0
while :; do
  i=$((i + 1))
  echo "$i"
  sleep 0.05
done
"""
THREADS = """\
import threading, time
counts = [0] * 4
lock = threading.Lock()
def work(index):
    while True:
        with lock:
            counts[index] += 1
        time.sleep(0.005)
for index in range(4):
    threading.Thread(target=work, args=(index,), daemon=True).start()
while True:
    time.sleep(0.05)
    with lock:
        print(*counts, flush=True)
"""


def numbers(path):
    return [[int(word) for word in line.split()] for line in harness.read(path, "").splitlines(keepends=True) if line.endswith("\n")]


def cycle(session, pid, name):
    images = session.path(name)
    session.dump(pid, images)
    session.wait_gone(pid)
    session.reap()
    session.restore(images, "-d")
    harness.require(harness.is_alive(pid), f"pid {pid} is not there")


def case_bash_script(session):
    harness.needs_root()
    output = session.path("out")
    pid = session.start("bash", "-c", SCRIPT, stdout=output)
    for number in range(3):
        seen = len(numbers(output))
        harness.wait_until(lambda: len(numbers(output)) > seen + 2, "the script does not go on")
        cycle(session, pid, f"images{number}")
    seen = len(numbers(output))
    harness.wait_until(lambda: len(numbers(output)) > seen + 2, "the script does not go on")
    values = [line[0] for line in numbers(output)]
    harness.require(values == list(range(1, len(values) + 1)), f"numbers are missing or repeated: {values}")


def case_python_threads(session):
    harness.needs_root()
    output = session.path("out")
    pid = session.start("/usr/bin/python3", "-c", THREADS, stdout=output)
    for number in range(2):
        seen = len(numbers(output))
        harness.wait_until(lambda: len(numbers(output)) > seen + 2, "the program does not go on")
        cycle(session, pid, f"images{number}")
    seen = len(numbers(output))
    harness.wait_until(lambda: len(numbers(output)) > seen + 2, "the program does not go on")
    lines = numbers(output)
    for earlier, later in zip(lines, lines[1:]):
        harness.require(all(a <= b for a, b in zip(earlier, later)), f"a thread lost its count: {earlier} -> {later}")
    harness.require(all(a < b for a, b in zip(lines[seen - 1], lines[-1])), f"a thread stands still: {lines[-1]}")


def case_sleep_tree(session):
    harness.needs_root()
    pid = session.start("bash", "-c", "(sleep 1000 & sleep 1001 & wait) & sleep 1002 & wait")
    harness.wait_until(lambda: len(harness.tree_of(pid)) == 5, "the tree does not grow")
    harness.wait_until(lambda: sorted((harness.read(f"/proc/{p}/comm") or "").strip() for p in harness.tree_of(pid)) ==
                       ["bash", "bash", "sleep", "sleep", "sleep"], "the sleeps do not start")
    before = procview.snapshot(pid)
    cycle(session, pid, "images")
    procview.compare(before, procview.snapshot(pid), "after the restore")
    os.kill(pid, signal.SIGTERM)
    harness.require(session.exit_status(pid) == 128 + signal.SIGTERM, "SIGTERM does not end the restored shell")


def case_exit_status(session):
    """A restore that waits ends like the program it restored."""
    harness.needs_root()
    for number, (command, wanted) in enumerate((("sleep 0.4; exit 0", 0), ("sleep 0.4; exit 23", 23), ("sleep 0.4; kill -9 $$", 137))):
        pid = session.start("bash", "-c", command)
        images = session.path(f"images{number}")
        session.dump(pid, images)
        session.wait_gone(pid)
        run = session.run("restore", "-D", images, "-o", "restore.log", log=os.path.join(images, "restore.log"))
        status = 128 - run.status if run.status < 0 else run.status
        harness.require(status == wanted, f"wanted {wanted}: {run.describe()}")


def case_pid_file_exists(session):
    harness.needs_root()
    subject = session.subject("counter")
    images = session.path("images")
    session.dump(subject.pid, images)
    session.wait_gone(subject.pid)
    with open(session.path("pid"), "w") as file:
        file.write("occupied")
    run = session.restore(images, "-d", "--pidfile", session.path("pid"), expect_success=False)
    harness.check_refusal(run, "PIDFILE")
    harness.require(not os.path.exists(f"/proc/{subject.pid}"), "a refused restore left its task")
    harness.require(harness.read(session.path("pid")) == "occupied", "the file that was there has been written to")
    session.restore(images, "-d", "--pidfile", session.path("pid2"))
    subject.finish()


def case_several_at_once(session):
    """Independent trees are dumped and restored at the same time."""
    harness.needs_root()
    subjects = [session.subject(name, directory=name) for name in ("counter", "threads", "tree_cow", "pipes")]
    for verb in ("dump", "restore"):
        processes = []
        for index, subject in enumerate(subjects):
            images = session.path(f"images{index}")
            os.makedirs(images, exist_ok=True)
            what = ("-t", str(subject.pid)) if verb == "dump" else ("-d",)
            processes.append(subprocess.Popen([session.stasis, verb, *what, "-D", images, "-o", verb + ".log"],
                                              stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True))
        for process in processes:
            _, text = process.communicate(timeout=harness.TOOL_TIMEOUT_S) if verb == "dump" else (None, "")
            status = process.wait(harness.TOOL_TIMEOUT_S)
            harness.require(status == 0, f"{verb} ended with {status}: {text}")
        for subject in subjects if verb == "dump" else ():
            session.wait_gone(subject.pid)
    for subject in subjects:
        subject.finish()


def case_statistics(session):
    """Page files hold whole pages, and only those that were touched."""
    harness.needs_root()
    subject = session.subject("mem_anon")
    images = session.path("images")
    run = session.dump(subject.pid, images, "-R", "--display-stats")
    stored = sum(os.path.getsize(os.path.join(images, name)) for name in os.listdir(images) if re.match(r"pages-\d+\.img$", name))
    harness.require(stored > 0 and stored % 4096 == 0, f"{stored} bytes of pages")
    harness.require(stored < 64 << 20, f"a sparse program costs {stored} bytes")
    harness.require(os.path.getsize(os.path.join(images, "stats-dump")) > 8 and run.stdout.strip(), "no statistics")
    subject.finish()


if __name__ == "__main__":
    sys.exit(harness.run_scenarios(globals()))
