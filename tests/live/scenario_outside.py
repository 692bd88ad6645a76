#!/usr/bin/env python3
"""Files that stay outside of a dump: terminals, pipes, files and memory that the caller of the restore gives."""
import fcntl
import os
import pty
import re
import signal
import sys
import termios

import harness

# Says every line that it reads, with a number, on descriptor `out`.
ECHO = """\
import os, sys
source, out = int(sys.argv[1]), int(sys.argv[2])
number = 0
while True:
    line = os.read(source, 4096)
    if not line:
        break
    number += 1
    os.write(out, b"%d %s" % (number, line))
"""


def read_line(fd, timeout_s=10):
    text = b""

    def more():
        nonlocal text
        os.set_blocking(fd, False)
        try:
            text += os.read(fd, 4096)
        except BlockingIOError:
            pass
        return text.endswith(b"\n")

    harness.wait_until(more, f"no line comes, but {text!r}", timeout_s)
    return text.replace(b"\r\n", b"\n")


def silent_pair():
    master, slave = pty.openpty()
    settings = termios.tcgetattr(slave)
    settings[3] &= ~termios.ECHO
    termios.tcsetattr(slave, termios.TCSANOW, settings)
    return master, slave


def start(session, source, out, controlling=False):
    """The program, with copies of these two as its only descriptors; its pid. `controlling`: the first is its terminal."""
    null = os.open("/dev/null", os.O_RDWR)
    pid = os.fork()
    if pid == 0:
        os.setsid()
        if controlling:
            fcntl.ioctl(source, termios.TIOCSCTTY, 0)
        os.chdir("/")
        os.dup2(source, 100)
        os.dup2(out, 101)
        for number in range(3):
            os.dup2(null, number)
        os.closerange(3, 100)
        os.closerange(102, 256)
        os.set_inheritable(100, True)
        os.set_inheritable(101, True)
        os.execv("/usr/bin/python3", ["/usr/bin/python3", "-c", ECHO, "100", "101"])
    os.close(null)
    return pid


def key_of(fd):
    st = os.fstat(fd)
    return f"tty[{st.st_rdev:x}:{st.st_dev:x}]"


def refuse(session, pid, code, *options):
    run = session.dump(pid, session.path("refused"), *options, expect_success=False)
    harness.check_refusal(run, code)
    return run


def case_terminal(session):
    harness.needs_root()
    master, slave = silent_pair()
    pid = start(session, slave, slave)
    os.write(master, b"one\n")
    harness.require(read_line(master) == b"1 one\n", "the program does not answer")
    key = key_of(slave)
    run = refuse(session, pid, "UNSUPPORTED_FILE")
    harness.require(f"--external '{key}'" in run.stderr, f"the remedy does not name {key}: {run.stderr}")
    images = session.path("images")
    session.dump(pid, images, "--external", key)
    session.wait_gone(pid)
    run = session.restore(images, "-d", expect_success=False)
    harness.check_refusal(run, "TERMINAL_MISSING")
    harness.require(f"--inherit-fd 'fd[N]:{key}'" in run.stderr, f"the remedy does not name {key}: {run.stderr}")
    run = session.restore(images, "-d", "--inherit-fd", f"fd[0]:{key}", expect_success=False)
    harness.check_refusal(run, "TERMINAL_MISSING")  # /dev/null
    other_master, other = silent_pair()
    session.restore(images, "-d", "--inherit-fd", f"fd[{other}]:{key}", pass_fds=(other,))
    os.write(other_master, b"two\n")
    harness.require(read_line(other_master) == b"2 two\n", "the program does not go on")
    os.kill(pid, signal.SIGKILL)


def terminal_of(pid):
    fields = harness.read(f"/proc/{pid}/stat").rpartition(") ")[2].split()
    return int(fields[4]), int(fields[5])  # the device and the foreground group


def case_controlling_terminal(session):
    """It controls a session of the tree, and another one takes its place in that, too."""
    harness.needs_root()
    master, slave = silent_pair()
    pid = start(session, slave, slave, controlling=True)
    os.write(master, b"one\n")
    harness.require(read_line(master) == b"1 one\n", "the program does not answer")
    key, images = key_of(slave), session.path("images")
    harness.require(terminal_of(pid) == (os.fstat(slave).st_rdev, pid), "the terminal is not its own")
    run = refuse(session, pid, "UNSUPPORTED_FILE")
    harness.require(f"--external '{key}'" in run.stderr, f"the remedy does not name {key}: {run.stderr}")
    session.dump(pid, images, "--external", key)
    session.wait_gone(pid)
    other_master, other = silent_pair()
    keeper = start(session, other, other, controlling=True)
    harness.wait_until(lambda: terminal_of(keeper)[0] != 0, "no second session")
    run = session.restore(images, "-d", "--inherit-fd", f"fd[{other}]:{key}", pass_fds=(other,), expect_success=False)
    harness.check_refusal(run, "TERMINAL_MISSING")
    os.kill(keeper, signal.SIGKILL)
    session.wait_gone(keeper)
    session.restore(images, "-d", "--inherit-fd", f"fd[{other}]:{key}", pass_fds=(other,))
    harness.require(terminal_of(pid) == (os.fstat(other).st_rdev, pid), f"the terminal is {terminal_of(pid)}")
    os.write(other_master, b"two\n")
    harness.require(read_line(other_master) == b"2 two\n", "the program does not go on")
    os.write(other_master, b"\x03")
    session.wait_gone(pid)


def case_pipe(session):
    harness.needs_root()
    reader, writer = os.pipe()
    answers, answer = os.pipe()
    pid = start(session, reader, answer)
    os.close(reader)
    os.close(answer)
    os.write(writer, b"one\n")
    harness.require(read_line(answers) == b"1 one\n", "the program does not answer")
    keys = [f"pipe:[{os.fstat(fd).st_ino}]" for fd in (writer, answers)]
    refuse(session, pid, "UNSUPPORTED_FILE")
    images = session.path("images")
    session.dump(pid, images, "--external", keys[0], "--external", keys[1])
    session.wait_gone(pid)
    reader, writer = os.pipe()
    answers, answer = os.pipe()
    run = session.restore(images, "-d", "--inherit-fd", f"fd[{reader}]:{keys[0]}", pass_fds=(reader, answer), expect_success=False)
    harness.check_refusal(run, "FILE_MISSING")
    harness.require(f"--inherit-fd 'fd[N]:{keys[1]}'" in run.stderr, f"the remedy does not name {keys[1]}: {run.stderr}")
    session.restore(images, "-d", "--inherit-fd", f"fd[{reader}]:{keys[0]}", "--inherit-fd", f"fd[{answer}]:{keys[1]}",
                    pass_fds=(reader, answer))
    os.close(reader)
    os.close(answer)
    os.write(writer, b"two\n")
    harness.require(read_line(answers) == b"2 two\n", "the program does not go on")
    os.close(writer)
    session.wait_gone(pid)


def case_file_by_path(session):
    """A file takes the place of another one: by path without the leading slash."""
    harness.needs_root()
    out = session.path("out")
    reader, writer = os.pipe()
    file = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    pid = start(session, reader, file)
    os.close(reader)
    os.close(file)
    os.write(writer, b"one\n")
    harness.wait_until(lambda: harness.read(out) == "1 one\n", "the program does not answer")
    key = f"pipe:[{os.fstat(writer).st_ino}]"
    images = session.path("images")
    session.dump(pid, images, "--external", key)
    session.wait_gone(pid)
    reader, writer = os.pipe()
    other = os.open(session.path("other"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    session.restore(images, "-d", "--inherit-fd", f"fd[{reader}]:{key}", "--inherit-fd", f"fd[{other}]:{out[1:]}",
                    pass_fds=(reader, other))
    os.close(reader)
    os.write(writer, b"two\n")
    harness.wait_until(lambda: harness.read(session.path("other")) == "2 two\n", "the program does not go on there")
    harness.require(harness.read(out) == "1 one\n", "it wrote into the old file")
    os.close(writer)
    session.wait_gone(pid)


def case_file_by_inode(session):
    """A file that is declared external is not looked for: it must be given."""
    harness.needs_root()
    reader, writer = os.pipe()
    file = os.open(session.path("out"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    mount = int(re.search(r"^mnt_id:\s*(\d+)$", harness.read(f"/proc/self/fdinfo/{file}"), re.MULTILINE).group(1))
    keys = [f"pipe:[{os.fstat(reader).st_ino}]", f"file[{mount:x}:{os.fstat(file).st_ino:x}]"]
    pid = start(session, reader, file)
    os.close(reader)
    os.close(file)
    os.write(writer, b"one\n")
    harness.wait_until(lambda: harness.read(session.path("out")) == "1 one\n", "the program does not answer")
    images = session.path("images")
    session.dump(pid, images, "--external", keys[0], "--external", keys[1])
    session.wait_gone(pid)
    os.unlink(session.path("out"))
    reader, writer = os.pipe()
    run = session.restore(images, "-d", "--inherit-fd", f"fd[{reader}]:{keys[0]}", pass_fds=(reader,), expect_success=False)
    harness.check_refusal(run, "FILE_MISSING")
    harness.require(f"--inherit-fd 'fd[N]:{keys[1]}'" in run.stderr, f"the remedy does not name {keys[1]}: {run.stderr}")
    other = os.open(session.path("other"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    session.restore(images, "-d", "--inherit-fd", f"fd[{reader}]:{keys[0]}", "--inherit-fd", f"fd[{other}]:{keys[1]}",
                    pass_fds=(reader, other))
    os.close(reader)
    os.write(writer, b"two\n")
    harness.wait_until(lambda: harness.read(session.path("other")) == "2 two\n", "the program does not go on there")
    os.close(writer)
    session.wait_gone(pid)


def case_memory(session):
    """A memfd takes the place of another one, mapped and as a descriptor."""
    harness.needs_root()
    source, writer = os.pipe()
    memory = os.memfd_create("given by name")
    pid = start(session, source, memory)
    os.close(source)
    os.write(writer, b"one\n")
    harness.wait_until(lambda: os.pread(memory, 100, 0) == b"1 one\n", "the program does not answer")
    key = f"pipe:[{os.fstat(writer).st_ino}]"
    images = session.path("images")
    session.dump(pid, images, "--external", key)
    session.wait_gone(pid)
    source, writer = os.pipe()
    other = os.memfd_create("other")
    session.restore(images, "-d", "--inherit-fd", f"fd[{source}]:{key}", "--inherit-fd", f"fd[{other}]:/memfd:given by name",
                    pass_fds=(source, other))
    os.close(source)
    os.write(writer, b"two\n")
    harness.wait_until(lambda: os.pread(other, 100, 0) == b"2 two\n", "the program does not go on there")
    harness.require(os.pread(memory, 100, 0) == b"1 one\n", "it wrote into the old one")
    os.close(writer)
    session.wait_gone(pid)


if __name__ == "__main__":
    sys.exit(harness.run_scenarios(globals()))
