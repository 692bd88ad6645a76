#!/usr/bin/env python3
"""Programs as people run them, each as a session of its own and as a job of the caller's shell: saved while they run on,
then three times saved, ended and brought back. None may miss, repeat or damage anything."""
import hashlib
import os
import re
import shutil
import signal
import sys
import time

import harness
import procview

CYCLES = 3

BASH_LOOP = "i=0; while :; do i=$((i + 1)); echo $i; sleep 0.03; done"
PERL_LOOP = "$| = 1; for ($i = 1; ; $i++) { print $i, chr(10); select(undef, undef, undef, 0.03); }"
# Every number goes through a queue to one of three threads, which writes it down.
PYTHON_QUEUE = """\
import itertools, os, queue, threading, time
work = queue.Queue(4)
def consume():
    while True:
        os.write(1, b"%d\\n" % work.get())
        time.sleep(0.01)
for _ in range(3):
    threading.Thread(target=consume, daemon=True).start()
for number in itertools.count(1):
    work.put(number)
    time.sleep(0.01)
"""
# Every number goes through two pipes and a child.
PYTHON_CHILD = """\
import itertools, subprocess, time
child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
for number in itertools.count(1):
    child.stdin.write(b"%d\\n" % number)
    print(int(child.stdout.readline()), flush=True)
    time.sleep(0.03)
"""
PIPED_BYTES = 300_000_000


def needs(*programs):
    harness.needs_root()
    for program in programs:
        if shutil.which(program) is None:
            raise harness.Skip(f"this machine lacks: {program}")


def numbers(path):
    return [int(number) for number in re.findall(r"^(\d+)\n", harness.read(path, ""), re.MULTILINE)]


class Program:
    """A running program and the images it goes through."""

    def __init__(self, session, name, command, shell_job):
        self.session = session
        self.name = name
        self.output = session.path(name + ".out")
        self.options = ("-j",) if shell_job else ()
        self.pid = session.start(*command, stdout=self.output, new_session=not shell_job)
        self.dumps = 0

    def images(self):
        self.dumps += 1
        return self.session.path(f"{self.name}{self.dumps}")

    def save(self):
        self.session.dump(self.pid, self.images(), "-R", *self.options)

    def save_and_bring_back(self):
        images = self.images()
        self.session.dump(self.pid, images, *self.options)
        self.session.wait_gone(self.pid)
        self.session.restore(images, "-d", *self.options)
        harness.require(harness.is_alive(self.pid), f"{self.name}: pid {self.pid} is not there")

    def expect_progress(self):
        seen = len(numbers(self.output))
        harness.wait_until(lambda: len(numbers(self.output)) > seen + 3, f"{self.name} does not go on")

    def end(self):
        for pid in reversed(harness.tree_of(self.pid)):
            os.kill(pid, signal.SIGKILL)
        self.session.wait_gone(self.pid)


def count_through_cycles(session, name, *command):
    """For programs that write 1, 2, 3 ...; the order may differ by a few places."""
    for shell_job in (False, True):
        program = Program(session, name + ("_job" if shell_job else ""), command, shell_job)
        program.expect_progress()
        program.save()
        program.expect_progress()
        for _ in range(CYCLES):
            program.save_and_bring_back()
            program.expect_progress()
        program.end()
        seen = numbers(program.output)
        out_of_place = max(abs(number - place) for place, number in enumerate(seen, 1))
        harness.require(len(set(seen)) == len(seen) and out_of_place <= 4, f"{name}: numbers are missing or repeated: {seen}")


def case_bash_loop(session):
    needs("bash")
    count_through_cycles(session, "bash", "bash", "-c", BASH_LOOP)


def case_perl(session):
    needs("perl")
    count_through_cycles(session, "perl", "perl", "-e", PERL_LOOP)


def case_python_queue(session):
    needs("/usr/bin/python3")
    count_through_cycles(session, "queue", "/usr/bin/python3", "-c", PYTHON_QUEUE)


def case_python_child(session):
    needs("/usr/bin/python3")
    count_through_cycles(session, "child", "/usr/bin/python3", "-c", PYTHON_CHILD)


def case_sleep(session):
    """A sleep lasts as long as it should, without the time it did not exist."""
    needs("sleep")
    for shell_job in (False, True):
        program = Program(session, f"sleep{shell_job:d}", ("sleep", "1.5"), shell_job)
        harness.wait_until(lambda: (harness.read(f"/proc/{program.pid}/wchan") or "").endswith("nanosleep") or
                           harness.state_of(program.pid) == "S", "it does not sleep")
        began = time.monotonic()
        before = procview.snapshot(program.pid)
        program.save()
        for _ in range(CYCLES):
            program.save_and_bring_back()
        procview.compare(before, procview.snapshot(program.pid), "after three restores")
        harness.require(session.exit_status(program.pid) == 0, "the sleep does not end as it should")
        lasted = time.monotonic() - began
        harness.require(1.4 < lasted < 10, f"a sleep of 1.5 s lasted {lasted:.2f} s")


def case_pipeline(session):
    """Data in flight between three programs."""
    needs("yes", "head", "md5sum")
    wanted = hashlib.md5(b"y\n" * (PIPED_BYTES // 2)).hexdigest()
    script = f"yes | head -c {PIPED_BYTES} | md5sum; echo ended $?"
    for shell_job in (False, True):
        program = Program(session, f"pipeline{shell_job:d}", ("sh", "-c", script), shell_job)
        names = ["head", "md5sum", "sh", "yes"]
        harness.wait_until(lambda: sorted((harness.read(f"/proc/{pid}/comm") or "").strip()
                                          for pid in harness.tree_of(program.pid)) == names, "the pipeline does not start")
        program.save()
        for _ in range(CYCLES):
            program.save_and_bring_back()
        harness.require(session.exit_status(program.pid) == 0, "the pipeline does not end as it should")
        harness.require(harness.read(program.output) == f"{wanted}  -\nended 0\n",
                        f"the pipeline computed {harness.read(program.output)!r}")


class Pipe:
    """A pipe, and the numbers that came through it."""

    def __init__(self):
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)
        self.text = b""

    def close_writer(self):
        os.close(self.writer)

    def numbers(self):
        try:
            self.text += os.read(self.reader, 65536)
        except BlockingIOError:
            pass
        return [int(line) for line in self.text.split(b"\n")[:-1]]


def case_pipe_to_outside(session):
    """Output into a pipe whose reader is no part of the tree: refused by name, or given another pipe on request."""
    needs("/usr/bin/python3")
    text = "import itertools, time\nfor i in itertools.count(1): print(i); time.sleep(0.02)"
    old, new = Pipe(), Pipe()
    pid = session.start("/usr/bin/python3", "-uc", text, stdout=f"/proc/self/fd/{old.writer}")
    old.close_writer()
    harness.wait_until(lambda: len(old.numbers()) > 3, "the program does not start")
    name = os.readlink(f"/proc/{pid}/fd/1")
    run = session.dump(pid, session.path("refused"), expect_success=False)
    harness.check_refusal(run, "UNSUPPORTED_FILE")
    harness.require(f"({name})" in run.stderr and f"--external '{name}'" in run.stderr, run.stderr)
    seen = len(old.numbers())
    harness.wait_until(lambda: len(old.numbers()) > seen + 3, "the program does not go on after a refusal")
    images = session.path("images")
    session.dump(pid, images, "--external", name)
    session.wait_gone(pid)
    session.restore(images, "-d", "--inherit-fd", f"fd[{new.writer}]:{name}", pass_fds=(new.writer,))
    new.close_writer()
    harness.wait_until(lambda: len(new.numbers()) > 5, "the program does not go on in the new pipe")
    seen = old.numbers() + new.numbers()
    harness.require(seen == list(range(1, len(seen) + 1)), f"numbers are missing or repeated: {seen}")


REFUSED = {
    "UNSUPPORTED_FILE": (
        ("socket", "import socket; kept = socket.socketpair()"),
        ("socket", "import socket; kept = socket.create_server(('127.0.0.1', 0))"),
    ),
}


def case_refused_files(session):
    """What cannot be saved is refused by name, and the program does not notice."""
    needs("/usr/bin/python3")
    for reason, programs in REFUSED.items():
        for number, (word, text) in enumerate(programs):
            text = f"import time\n{text}\nnumber = 0\nwhile True:\n  number += 1\n  print(number, flush=True)\n  time.sleep(0.02)"
            program = Program(session, f"{reason}{number}", ("/usr/bin/python3", "-c", text), shell_job=True)
            program.expect_progress()
            run = session.dump(program.pid, program.images(), "-j", expect_success=False)
            harness.check_refusal(run, reason)
            harness.require(re.search(rf"fd \d+ .*{word}", run.stderr), f"the error does not name the {word}: {run.stderr}")
            program.expect_progress()
            program.end()


if __name__ == "__main__":
    sys.exit(harness.run_scenarios(globals()))
