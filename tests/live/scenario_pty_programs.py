#!/usr/bin/env python3
"""Interactive programs in terminals that are part of the dump: a shell with stopped and running jobs, editors with
unsaved text, terminals in terminals."""
import os
import re
import shutil
import subprocess
import sys
import time

import harness
import procview

HOST = os.path.join(os.path.dirname(os.path.abspath(__file__)), "programs", "pty_host.py")


class Hosted:
    """A program in a terminal of its own; dump and restore take the whole, with who drives it."""

    def __init__(self, session, *command):
        self.session, self.seen, self.images = session, 0, 0
        self.pid = session.start("/usr/bin/python3", HOST, session.directory, *command)

    def shown(self):
        return harness.read(self.session.path("screen"), "").replace("\r\n", "\n")

    def type(self, text):
        with open(self.session.path("keys"), "a") as keys:
            keys.write(text)

    def expect(self, pattern):
        def find():
            return re.compile(pattern, re.MULTILINE).search(self.shown(), self.seen)

        try:
            match = harness.wait_until(find, f"the terminal does not show /{pattern}/")
        except harness.Failure as failure:
            raise harness.Failure(f"{failure}:\n{self.shown()[self.seen:]!r}") from failure
        self.seen = match.end()
        return match

    def command(self, line, pattern):
        self.type(line + "\n")
        return self.expect(pattern)

    def wait_quiet(self):
        """Until nothing more is shown: /proc tells how much it was."""
        shown = None
        while shown != self.shown():
            shown = self.shown()
            time.sleep(0.1)

    def cycle(self):
        self.wait_quiet()
        self.images += 1
        images = self.session.path(f"images{self.images}")
        before = procview.snapshot(self.pid)
        self.session.dump(self.pid, images)
        self.session.wait_gone(self.pid)
        self.session.reap()
        self.session.restore(images, "-d")
        procview.compare(before, procview.snapshot(self.pid), "after the restore")

    def live(self):
        self.images += 1
        self.session.dump(self.pid, self.session.path(f"images{self.images}"), "-R")


def needs(*programs):
    harness.needs_root()
    for program in programs:
        if shutil.which(program) is None:
            raise harness.Skip(f"this machine lacks: {program}")


def start_shell(session):
    shell = Hosted(session, "bash", "--norc", "--noprofile", "-i")
    shell.expect(r"prompt> ")
    return shell


def case_shell_with_jobs(session):
    """One job stopped, one in the background, one in the foreground; job control goes on."""
    needs()
    shell = start_shell(session)
    shell.command("sleep 1001", r"sleep 1001\n")
    harness.wait_until(lambda: len(harness.tree_of(shell.pid)) == 3, "no job")
    shell.type("\x1a")
    shell.expect(r"Stopped")
    shell.command("sleep 1002 &", r"\[2\] \d+")
    shell.command("sleep 1003", r"sleep 1003\n")
    harness.wait_until(lambda: len(harness.tree_of(shell.pid)) == 5, "no job in the foreground")
    for _ in range(3):
        shell.cycle()
    shell.type("\x03")
    shell.expect(r"prompt> ")
    shell.command("jobs", r"\[1\]\+\s+Stopped\s+sleep 1001\n\[2\]-\s+Running\s+sleep 1002 &\n")
    shell.live()
    shell.command("fg 1", r"^sleep 1001\n")
    shell.cycle()
    shell.type("\x1a")
    shell.expect(r"\[1\]\+\s+Stopped")
    shell.command("kill %1 %2; wait; echo ended $((40 + 2))", r"ended 42")
    shell.command("tty; echo $COLUMNS $LINES; stty size", r"^/dev/pts/\d+\n80 24\n24 80\n")
    shell.command("exit", r"exit")
    session.wait_gone(shell.pid)


def case_half_a_line(session):
    """What was typed at the prompt, and at a program that reads whole lines."""
    needs("cat")
    shell = start_shell(session)
    shell.type("echo what was ty")
    shell.expect(r"echo what was ty")
    shell.cycle()
    shell.command("ped", r"^what was typed$")
    shell.command("cat", r"cat\n")
    harness.wait_until(lambda: len(harness.tree_of(shell.pid)) == 3, "no cat")
    shell.type("first half")
    shell.expect("first half")
    shell.live()
    shell.cycle()
    shell.command(", second half", r"^first half, second half$")
    shell.type("\x04")
    shell.command("echo still $((40 + 2))", r"still 42")


def case_editor(session):
    needs("vim")
    shell = start_shell(session)
    shell.command("vim -u NONE -n text", r"\[New( File)?\]")
    shell.type("ikept in the editor")
    shell.expect(r"kept in the editor")
    shell.cycle()
    shell.live()
    shell.type(", and written\x1b:wq\r")
    harness.wait_until(lambda: harness.read(session.path("text")) == "kept in the editor, and written\n", "nothing is written")
    shell.cycle()
    shell.command("echo still $((40 + 2))", r"still 42")


def case_pager(session):
    needs("less")
    with open(session.path("pages"), "w") as file:
        file.writelines(f"line {number}\n" for number in range(1, 1001))
    shell = start_shell(session)
    shell.command("less pages", r"line 23")
    shell.cycle()
    shell.type(" ")
    shell.expect(r"line 46")
    shell.type("q")
    shell.command("echo still $((40 + 2))", r"still 42")


def case_script_in_script(session):
    """Terminals in terminals: each has a shell that drives the next."""
    needs("script")
    shell = start_shell(session)
    for depth in (1, 2):
        shell.command(f"script -q -c 'PS1=\"prompt> \" bash --norc --noprofile -i' typescript{depth}", r"prompt> ")
        shell.command(f"echo depth {depth}0; tty", rf"^depth {depth}0\n/dev/pts/\d+\n")
    for _ in range(2):
        shell.cycle()
    shell.command("echo still $((40 + 2))", r"^still 42$")
    shell.live()
    shell.command("exit", r"prompt> ")
    shell.cycle()
    shell.command("echo one up $((40 + 2)); exit", r"^one up 42$")
    shell.expect(r"prompt> ")
    shell.command("echo two up $((40 + 2))", r"^two up 42$")
    for depth in (1, 2):
        text = harness.read(session.path(f"typescript{depth}"), "")
        harness.require("still 42" in text, f"the record of script {depth} ends before the restore")


def case_tmux(session):
    """A server with a shell and an editor in it: saved as it is, or refused because of its socket, and unharmed."""
    needs("tmux", "vim")
    # The environment of the caller says whether tmux is inside of tmux.
    environment = {"PATH": os.environ["PATH"], "TERM": "vt100", "LC_ALL": "C", "HOME": session.directory, "SHELL": "/bin/sh"}

    def tmux(*arguments):
        run = subprocess.run(["tmux", "-f", "/dev/null", "-S", session.path("socket"), *arguments], env=environment,
                             cwd=session.directory, capture_output=True, text=True, timeout=20, check=False)
        harness.require(run.returncode == 0, f"tmux {arguments}: {run.stderr}")
        return run.stdout

    def shows(window, text):
        harness.wait_until(lambda: text in tmux("capture-pane", "-p", "-t", window), f"window {window} does not show {text}")

    def check(turn):
        tmux("send-keys", "-t", "=t:0", f"echo {turn} $((40 + 2))", "Enter")
        shows("=t:0", f"{turn} 42")
        shows("=t:1", "kept in the editor")

    tmux("new-session", "-d", "-s", "t", "bash --norc --noprofile -i")
    tmux("new-window", "-t", "=t:1", "vim -u NONE -n text")
    shows("=t:1", "[New")
    tmux("send-keys", "-t", "=t:1", "ikept in the editor")
    check("first")
    server = int(tmux("display-message", "-p", "#{pid}"))
    images = session.path("images")
    run = session.dump(server, images, "-R", expect_success=False)
    check("second")
    if run.status != 0:
        harness.check_refusal(run, "UNSUPPORTED_FILE")
        harness.require("socket" in run.stderr, f"another refusal than that of the socket: {run.stderr}")
        print(f"tmux: refused: {run.stderr.splitlines()[0]}")
        return
    session.dump(server, images)
    session.wait_gone(server)
    session.reap()
    session.restore(images, "-d")
    check("third")
    tmux("send-keys", "-t", "=t:1", "Escape", ":wq", "Enter")
    harness.wait_until(lambda: harness.read(session.path("text")) == "kept in the editor\n", "nothing is written")


def case_number_taken(session):
    """Another program has the terminal's number: a refusal that leaves nothing, until it is free."""
    needs()
    shell = start_shell(session)
    number = int(shell.command("tty", r"^/dev/pts/(\d+)\n").group(1))
    images = session.path("images")
    session.dump(shell.pid, images)
    session.wait_gone(shell.pid)
    session.reap()
    before = os.listdir("/dev/pts")
    taken = []
    while not os.path.exists(f"/dev/pts/{number}"):
        taken.append(os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY))
    run = session.restore(images, "-d", expect_success=False)
    harness.check_refusal(run, "TERMINAL_TAKEN")
    harness.require(f"/dev/pts/{number}" in run.stderr, f"the number is not named: {run.stderr}")
    for master in taken:
        os.close(master)
    harness.require(os.listdir("/dev/pts") == before, "the restore left terminals")
    session.restore(images, "-d")
    shell.command("echo still $((40 + 2))", r"^still 42$")


if __name__ == "__main__":
    sys.exit(harness.run_scenarios(globals()))
