#!/usr/bin/env python3
"""A program in the foreground of a terminal: dumped from elsewhere, restored in another terminal."""
import os
import re
import signal
import sys

import harness
import terminal


def as_criu(session):
    """The tool under the name that existing callers know."""
    alias = session.path("criu")
    if not os.path.exists(alias):
        os.symlink(session.stasis, alias)
    return alias


def start_counter(session, binary=None):
    """A terminal in which the counter runs, and its pid, dumped into img/ with the shell looking on."""
    first = terminal.Terminal(session, session.directory)
    counter = os.path.join(session.programs, "tty_counter")
    first.send(f"{counter}\n")
    first.expect(r"^count 5$")
    pid = terminal.foreground_child(first, "tty_counter")
    os.mkdir(session.path("img"))
    run = session.run("dump", "-t", pid, "-D", "img/", "-o", "dump.log", "-v4", "--tcp-established", "-j",
                      cwd=session.directory, log=session.path("img/dump.log"), binary=binary)
    harness.check_success(run)
    first.expect(r"Killed")
    first.expect(re.escape(terminal.PROMPT))
    last = max(int(number) for number in re.findall(r"^count (\d+)$", first.text, re.MULTILINE))
    first.close()
    session.wait_gone(first.pid)
    session.reap()
    return pid, last


def expect_next(term, last):
    # The first may stand behind a prompt.
    term.expect(rf"count {last + 5}$")
    first = int(re.search(r"count (\d+)$", term.text, re.MULTILINE).group(1))
    harness.require(first == last + 1, f"the first number after the restore is {first}, the last before was {last}")


def case_detached(session):
    harness.needs_root()
    criu = as_criu(session)
    pid, last = start_counter(session, criu)
    second = terminal.Terminal(session, session.directory)
    second.send(f"{criu} restore -D img/ -o restore.log -d --tcp-close -j -v4; echo status=$?\n")
    second.expect(r"status=0")
    expect_next(second, last)
    harness.require(harness.is_alive(pid), f"pid {pid} is not there")
    log = harness.read(session.path("img/restore.log"))
    harness.require(not harness.ERROR_LINE.search(log), harness.tail(log))
    os.kill(pid, signal.SIGKILL)
    second.close()


def case_foreground_status(session):
    harness.needs_root()
    pid, last = start_counter(session)
    second = terminal.Terminal(session, session.directory)
    second.send(f"{session.stasis} restore -D img/ -j; echo status=$?\n")
    expect_next(second, last)
    os.kill(pid, signal.SIGUSR1)  # makes the program end with 17
    second.expect(r"^status=17$")
    second.close()


def case_foreground_interrupt(session):
    harness.needs_root()
    pid, last = start_counter(session)
    second = terminal.Terminal(session, session.directory)
    second.send(f"{session.stasis} restore -D img/ -j\n")
    expect_next(second, last)
    second.interrupt()
    second.expect(re.escape(terminal.PROMPT))
    session.wait_gone(pid)
    harness.require("status=130" in second.command("echo status=$?"), "the shell does not see the end by SIGINT")
    second.close()


def case_foreground_job_control(session):
    """Ctrl-Z stops the program and what waits for it; bg and fg let both go on."""
    harness.needs_root()
    pid, last = start_counter(session)
    term = terminal.Terminal(session, session.directory)
    term.send(f"{session.stasis} restore -D img/ -j\n")
    expect_next(term, last)
    for command in ("fg", "bg"):
        term.suspend()
        term.expect(r"Stopped")
        term.expect(re.escape(terminal.PROMPT))
        harness.wait_until(lambda: harness.state_of(pid) == "T", "Ctrl-Z does not stop the program")
        counted = max(int(number) for number in re.findall(r"^count (\d+)$", term.text, re.MULTILINE))
        term.send(command + "\n")
        term.expect(rf"count {counted + 1}$")
        term.expect(rf"count {counted + 3}$")
    term.send("echo the shell $((40 + 2)) reads\n")
    term.expect(r"the shell 42 reads")
    term.send("fg\n")
    term.expect(r"count \d+$")
    term.suspend()
    term.expect(r"Stopped")
    harness.wait_until(lambda: harness.state_of(pid) == "T", "Ctrl-Z after bg and fg does not stop the program")
    term.send("fg\n")
    term.expect(r"count \d+$")
    term.interrupt()
    session.wait_gone(pid)
    term.send("echo status=$?\n")
    term.expect(r"status=130")
    term.close()


def case_leave_running_and_stopped(session):
    """A job of a shell is saved while it runs on, or stands."""
    harness.needs_root()
    term = terminal.Terminal(session, session.directory)
    term.send(f"{os.path.join(session.programs, 'tty_counter')}\n")
    term.expect(r"^count 2$")
    pid = terminal.foreground_child(term, "tty_counter")
    session.dump(pid, session.path("running"), "-j", "-R")
    seen = max(int(number) for number in re.findall(r"^count (\d+)$", term.text, re.MULTILINE))
    term.expect(rf"^count {seen + 3}$")
    session.dump(pid, session.path("stopped"), "-j", "-s")
    term.expect(r"Stopped")
    term.expect(re.escape(terminal.PROMPT))
    counted = max(int(number) for number in re.findall(r"^count (\d+)$", term.text, re.MULTILINE))
    term.send("fg\n")
    term.expect(rf"count {counted + 1}$")
    term.interrupt()
    session.wait_gone(pid)
    term.close()


def case_terminal_in_a_job(session):
    """A job that drives a terminal of its own: the outer one is the caller's, the inner one comes back with its shell."""
    harness.needs_root()
    first = terminal.Terminal(session, session.directory)
    inner = "inner-prompt> "
    first.send(f"script -q -c 'PS1=\"{inner}\" bash --norc --noprofile --noediting -i' typescript\n")
    first.expect(inner)
    first.send("kept=42; tty\n")
    first.expect(r"^/dev/pts/\d+$")
    first.expect(inner)
    pid = terminal.foreground_child(first, "script")
    session.dump(pid, session.path("images"), "-j")
    first.expect(re.escape(terminal.PROMPT))
    first.close()
    session.wait_gone(first.pid)
    session.reap()
    second = terminal.Terminal(session, session.directory)
    second.send(f"stty raw -echo; {session.stasis} restore -D {session.path('images')} -j; stty sane; echo status=$?\n")
    # Until then what is typed would be for the shell.
    harness.wait_until(lambda: harness.is_alive(pid) and harness.state_of(pid) == "S", "the job is not restored")
    second.send("echo kept $kept; tty\n")
    second.expect(r"^kept 42$")
    second.expect(r"^/dev/pts/\d+$")
    second.send("exit\n")
    second.expect(r"status=0")
    second.close()


def case_shell_job_without_terminal(session):
    """Images of a shell job restored where there is no terminal: a clear refusal."""
    harness.needs_root()
    start_counter(session)
    run = session.run("restore", "-D", session.path("img"), "-d", "-j", "-o", "restore.log", wrapper=("setsid", "--wait"),
                      log=session.path("img/restore.log"))
    harness.check_refusal(run, "TERMINAL_MISSING")


if __name__ == "__main__":
    sys.exit(harness.run_scenarios(globals()))
