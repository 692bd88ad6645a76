"""An interactive shell in a pseudo terminal, driven like a user would."""
import os
import pty
import re
import select
import signal
import time

import harness

PROMPT = "stasis-test-prompt> "


class Terminal:
    def __init__(self, session, cwd):
        self.session = session
        self.text = ""   # everything the terminal showed
        self.seen = 0    # what expect() has consumed
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # what the test inherited is no part of the terminal
            os.chdir(cwd)
            environment = {"PATH": os.environ["PATH"], "TERM": "dumb", "PS1": PROMPT, "LC_ALL": "C", "HOME": cwd}
            os.execvpe("bash", ["bash", "--norc", "--noprofile", "--noediting", "-i"], environment)
        self.expect(re.escape(PROMPT))
        self.command("stty -echo; bind 'set enable-bracketed-paste off' 2> /dev/null")

    def pump(self, seconds=0.02):
        while select.select([self.master], [], [], seconds)[0]:
            try:
                got = os.read(self.master, 65536)
            except OSError:
                return
            self.text += got.decode(errors="replace").replace("\r\n", "\n")
            seconds = 0

    def expect(self, pattern, timeout_s=15):
        """Waits until what was not consumed yet matches; the match."""
        deadline = time.monotonic() + timeout_s
        while True:
            match = re.compile(pattern, re.MULTILINE).search(self.text, self.seen)
            if match:
                self.seen = match.end()
                return match
            if time.monotonic() > deadline:
                raise harness.Failure(f"the terminal does not show /{pattern}/, but:\n{harness.tail(self.text, 40)}")
            self.pump()

    def send(self, text):
        os.write(self.master, text.encode())

    def command(self, line):
        """Types a command and waits for the next prompt; what was shown in between."""
        before = self.seen
        self.send(line + "\n")
        self.expect(re.escape(PROMPT))
        return self.text[before:self.seen]

    def interrupt(self):
        self.send("\x03")

    def suspend(self):
        self.send("\x1a")

    def close(self):
        os.close(self.master)
        if harness.is_alive(self.pid):
            os.kill(self.pid, signal.SIGKILL)


def foreground_child(terminal, name):
    """The pid of the shell's child with that name."""
    def find():
        for pid in harness.children_of(terminal.pid):
            if (harness.read(f"/proc/{pid}/comm") or "").strip() == name:
                return pid
        return None

    return harness.wait_until(find, f"the shell has no child {name}")
