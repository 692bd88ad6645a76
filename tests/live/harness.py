"""What every live test needs: a scratch directory, subjects, runs of the tool, and an end that leaves nothing behind.

The test process is a sub-reaper: whatever a restore leaves detached becomes its child, so it can be waited for and,
at the end, every descendant can be found and ended by pid. Nothing else is ever signalled.
"""
import argparse
import contextlib
import ctypes
import dataclasses
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

PR_SET_CHILD_SUBREAPER = 36
CLONE_NEWNS = 0x20000
MS_PRIVATE_RECURSIVE = (1 << 18) | (1 << 14)
SKIP_STATUS = 77
TOOL_TIMEOUT_S = 30
SUBJECT_TIMEOUT_S = 20


class Failure(Exception):
    """The behaviour under test is not as wanted."""


class Skip(Exception):
    """The machine lacks a feature; the text names it."""


def require(condition, text):
    if not condition:
        raise Failure(text)


def wait_until(condition, text, timeout_s=SUBJECT_TIMEOUT_S, step_s=0.005):
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failure(f"timeout after {timeout_s} s: {text}")
        time.sleep(step_s)


def read(path, default=None):
    try:
        with open(path, errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return default


def children_of(pid):
    found = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for tid in threads:
        found += [int(child) for child in read(f"/proc/{pid}/task/{tid}/children", "").split()]
    return found


def tree_of(pid):
    """The pid and all its descendants, parents first."""
    pids = [pid]
    for known in pids:
        pids += children_of(known)
    return pids


def state_of(pid):
    text = read(f"/proc/{pid}/stat")
    return text[text.rindex(")") + 2] if text else None


def is_alive(pid):
    return state_of(pid) not in (None, "Z", "X")


@dataclasses.dataclass
class Run:
    """A finished run of the tool."""
    arguments: list
    status: int  # exit status; negative: ended by that signal
    stdout: str
    stderr: str
    log: str
    seconds: float

    def describe(self):
        text = "\n".join(part for part in (self.stdout.strip(), self.stderr.strip(), tail(self.log)) if part)
        return f"`{' '.join(self.arguments)}` ended with {self.status}:\n{text}"


def tail(text, lines=25):
    return "\n".join(text.splitlines()[-lines:])


ERROR_LINE = re.compile(r"^(?:\([0-9.]+\)\s*)?(?:\s*\d+: )?(Error|Warn )[ :(]", re.MULTILINE)
REASON_CODE = re.compile(r"\[([A-Z][A-Z0-9_]{3,})\]")


def own_mounts():
    """A mount namespace of this test's own, once, with terminals of its own: their numbers must be free at a restore.
    The tests that need root say so themselves."""
    if own_mounts.done or os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) != 0:
        raise Skip("this machine lacks: mount namespaces")
    require(libc.mount(None, b"/", None, ctypes.c_ulong(MS_PRIVATE_RECURSIVE), None) == 0, "the mounts cannot be made private")
    require(libc.mount(b"devpts", b"/dev/pts", b"devpts", ctypes.c_ulong(0), b"mode=620,ptmxmode=666") == 0,
            "no devpts for this test: " + os.strerror(ctypes.get_errno()))
    own_mounts.done = True


own_mounts.done = False


class Session:
    """One test: scratch directory, reaping, cleaning up. Use as a context manager."""

    def __init__(self, stasis=None, base=None):
        self.stasis = stasis
        self.subjects = self.programs = None
        self.statuses = {}  # pid -> wait status of children that ended
        own_mounts()
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.directory = tempfile.mkdtemp(prefix="live-", dir=base)
        os.chmod(self.directory, 0o755)  # subjects that dropped their privileges work below it

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        self.end_everything()
        shutil.rmtree(self.directory, ignore_errors=True)

    def path(self, *names):
        return os.path.join(self.directory, *names)

    def make_directory(self, name):
        path = self.path(name)
        os.mkdir(path)
        return path

    @contextlib.contextmanager
    def file_system(self, options):
        """A directory on a tmpfs of its own."""
        needs_root()
        directory = self.make_directory("storage")
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", directory], check=True)
        try:
            yield directory
        finally:
            subprocess.run(["umount", "--lazy", directory], check=True)

    def reap(self):
        """Collects every child that ended. Not while a tool runs through subprocess."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self.statuses[pid] = status

    def end_everything(self):
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            self.reap()
            left = tree_of(os.getpid())[1:]
            if not left:
                return
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.005)

    def has_ended(self, pid):
        """Whether this child has ended. A restored task has the pid of one that ended before."""
        self.reap()
        return pid in self.statuses and not os.path.exists(f"/proc/{pid}")

    def wait_gone(self, pid, timeout_s=SUBJECT_TIMEOUT_S):
        def gone():
            self.reap()
            return not os.path.exists(f"/proc/{pid}")

        wait_until(gone, f"pid {pid} does not go away", timeout_s)

    def exit_status(self, pid, timeout_s=SUBJECT_TIMEOUT_S):
        """The exit code of a child (as shells count: 128+n for signals)."""
        self.wait_gone(pid, timeout_s)
        require(pid in self.statuses, f"pid {pid} was not a child of this test")
        status = self.statuses.pop(pid)
        return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)

    def run(self, *arguments, log=None, cwd=None, env=None, stdin=subprocess.DEVNULL, timeout_s=TOOL_TIMEOUT_S, wrapper=(),
            binary=None, pass_fds=(), close_output=False):
        """Runs the tool and returns what it did; `log` is the file whose text belongs to the run."""
        require(binary or self.stasis, "this test needs --stasis")
        command = [*wrapper, binary or self.stasis, *map(str, arguments)]
        began = time.monotonic()
        with open(self.path("stdout"), "w+") as out, open(self.path("stderr"), "w+") as err:
            # Files, not pipes: a restored tree may hold them open for as long as it lives.
            process = subprocess.Popen(command, stdin=stdin, stdout=out, stderr=err, cwd=cwd, env=env, pass_fds=pass_fds)
            try:
                status = process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise Failure(f"`{' '.join(command)}` did not end in {timeout_s} s\n" + tail(read(log, "") if log else ""))
            out.seek(0)
            err.seek(0)
            run = Run(command, status, out.read(), err.read(), read(log, "") if log else "", time.monotonic() - began)
        self.reap()
        return run

    def start(self, *command, cwd="/", stdout=None, new_session=True):
        """Starts a program that is not a subject; its pid."""
        with open(stdout or os.devnull, "a") as out:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=cwd,
                                       start_new_session=new_session)
        process.returncode = 0  # reap() waits for it
        return process.pid

    def subject(self, name, **keywords):
        return Subject(self, os.path.join(self.subjects, name), **keywords)

    # The two verbs as the tests use them most

    def dump(self, pid, images, *options, expect_success=True, **keywords):
        os.makedirs(images, exist_ok=True)
        run = self.run("dump", "-t", pid, "-D", images, "-o", "dump.log", "-v4", *options,
                       log=os.path.join(images, "dump.log"), **keywords)
        if expect_success:
            check_success(run)
        return run

    def restore(self, images, *options, expect_success=True, **keywords):
        self.statuses.clear()  # how the dumped tasks ended; their pids live again
        run = self.run("restore", "-D", images, "-o", "restore.log", "-v4", *options,
                       log=os.path.join(images, "restore.log"), **keywords)
        if expect_success:
            check_success(run)
        return run


def check_success(run):
    require(run.status == 0, run.describe())
    loud = ERROR_LINE.search(run.log) or ERROR_LINE.search(run.stderr)
    require(loud is None, f"a successful run says `{loud and loud.group(0)}`: {run.describe()}")


def check_refusal(run, reason=None):
    """Exit status 1 and exactly one error, with a cause, a stable code and a remedy, on stderr."""
    require(run.status == 1, "wanted exit status 1: " + run.describe())
    codes = REASON_CODE.findall(run.stderr)
    require(len(codes) == 1, f"wanted exactly one error with a reason code on stderr, found {codes}: " + run.describe())
    require(run.stderr.count("What to do:") == 1, "no single remedy on stderr: " + run.describe())
    require(reason is None or re.fullmatch(reason, codes[0]), f"wanted reason {reason}, not {codes[0]}: " + run.describe())
    require("terminate called" not in run.stderr, run.describe())
    return codes[0]


class Subject:
    """A running subject program; see subjects/subject.h for the protocol."""

    def __init__(self, session, program, new_session=True, directory="subject"):
        self.session = session
        self.directory = session.make_directory(directory)
        self.generation = 0
        with open(os.path.join(self.directory, "stderr"), "w") as err:
            process = subprocess.Popen([program, self.directory], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                       stderr=err, start_new_session=new_session, cwd="/")
        process.returncode = 0  # Session reaps it
        self.pid = process.pid
        wait_until(self._is_ready, f"{os.path.basename(program)} does not get ready")

    def _file(self, name):
        return os.path.join(self.directory, name)

    def _is_ready(self):
        if os.path.exists(self._file("ready")):
            return True
        if not self.session.has_ended(self.pid):
            return False
        text = read(self._file("stderr"), "")
        code = os.waitstatus_to_exitcode(self.session.statuses[self.pid])
        skip = re.search(r"^SKIP: (.*)$", text, re.MULTILINE)
        if code == SKIP_STATUS and skip:
            raise Skip(f"this machine lacks: {skip.group(1)}")
        raise Failure(f"the subject could not set itself up, status {code}: {text.strip()}")

    def check(self, last=False):
        self.generation += 1
        if os.path.exists(self._file("result")):
            os.unlink(self._file("result"))
        with open(self._file("check.new"), "w") as file:
            file.write(f"{self.generation}{' last' if last else ''}\n")
        os.rename(self._file("check.new"), self._file("check"))
        wait_until(self._has_answered, "the subject gives no answer to a check")
        answer = read(self._file("result")).strip()
        require(answer == f"{self.generation} PASS", f"the subject says: {answer}")

    def _has_answered(self):
        if os.path.exists(self._file("result")):
            return True
        if self.session.has_ended(self.pid):
            status = os.waitstatus_to_exitcode(self.session.statuses[self.pid])
            if not os.path.exists(self._file("result")):
                raise Failure(f"the subject ended with {status}: {read(self._file('stderr'), '').strip()}")
        return False

    def finish(self):
        """The last check, and the end of the program."""
        self.check(last=True)
        status = self.session.exit_status(self.pid)
        require(status == 0, f"the subject ended with status {status}: {read(self._file('stderr'), '').strip()}")

    def kill(self):
        pids = list(tree_of(self.pid))
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for pid in pids:
            self.session.wait_gone(pid)

    # Files that the subject changes while it runs are part of the world an image expects.

    def save_files(self):
        return {name: open(self._file(name), "rb").read() for name in os.listdir(self.directory)
                if os.path.isfile(self._file(name)) and not os.path.islink(self._file(name))}

    def put_back_files(self, saved):
        for name in os.listdir(self.directory):
            if os.path.isfile(self._file(name)) and name not in saved:
                os.unlink(self._file(name))
        for name, content in saved.items():
            if open(self._file(name), "rb").read() == content:
                continue  # a mapped or running file must keep its inode and its times
            with open(self._file(name), "r+b") as file:
                file.write(content)
                file.truncate()
        for stale in ("check", "result"):
            if os.path.exists(self._file(stale)):
                os.unlink(self._file(stale))


def main(function, arguments):
    """Runs a test function and turns its end into an exit status that ctest understands."""
    try:
        function(arguments)
    except Skip as skip:
        print(f"SKIPPED: {skip}")
        return SKIP_STATUS
    except Failure as failure:
        print(f"FAILED: {failure}", file=sys.stderr)
        return 1
    print("passed")
    return 0


def default_base():
    return "/dev/shm" if os.path.isdir("/dev/shm") else None


def needs_root():
    if os.geteuid() != 0:
        raise Skip("this machine lacks: root's privileges")


def run_scenarios(module):
    """Runs every case_* function of a scenario file, each in a session of its own; a failure does not end the others."""
    cases = {name.removeprefix("case_"): function for name, function in module.items() if name.startswith("case_")}
    parser = argparse.ArgumentParser(description=module["__doc__"], formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stasis", required=True, type=os.path.abspath, help="the binary under test")
    parser.add_argument("--subjects", required=True, type=os.path.abspath, help="directory of the subject programs")
    parser.add_argument("--programs", required=True, type=os.path.abspath, help="directory of the other programs")
    parser.add_argument("--base", default=default_base(), help="where scratch directories go")
    parser.add_argument("case", nargs="*", choices=[[], *cases])
    arguments = parser.parse_args()
    failed = 0
    for name in arguments.case or cases:
        try:
            with Session(arguments.stasis, arguments.base) as session:
                session.subjects, session.programs = arguments.subjects, arguments.programs
                cases[name](session)
            print(f"{name}: passed", flush=True)
        except Skip as skip:
            print(f"{name}: SKIPPED: {skip}")
            if len(cases) == 1 or arguments.case:
                return SKIP_STATUS
        except Failure as failure:
            failed += 1
            print(f"{name}: FAILED: {failure}", flush=True)
        except Exception:  # a defect of the test must not hide the other cases
            failed += 1
            print(f"{name}: FAILED: {traceback.format_exc()}", flush=True)
    return 1 if failed else 0
