#!/usr/bin/env python3
"""The command line as existing callers use it."""
import os
import sys

import harness


def case_version(session):
    alias = session.path("criu")
    os.symlink(session.stasis, alias)
    for binary in (alias, session.stasis):
        run = session.run("--version", binary=binary)
        harness.require(run.status == 0, run.describe())
    run = session.run("-V", binary=alias)
    harness.require(run.stdout.splitlines()[0] == "Version: 4.2", f"called as criu: {run.stdout!r}")


def case_help(session):
    run = session.run("--help")
    harness.require(run.status == 0 and "dump" in run.stdout and "shell-job" in run.stdout, run.describe())
    run = session.run("dump", "--no-such-option", "--help")
    harness.require(run.status == 0, "help wins over parse errors: " + run.describe())


def case_mistakes(session):
    for arguments in ((), ("no-such-command",), ("dump",), ("dump", "-t", "0"), ("dump", "-t", "abc"), ("dump", "--no-such-option"),
                      ("dump", "-t", "1", "extra"), ("restore", "--verbosity=x"), ("restore", "--restore-sibling")):
        run = session.run(*arguments, cwd=session.directory)
        harness.check_refusal(run)


def case_removed_commands(session):
    for command in ("exec", "show"):
        run = session.run(command)
        harness.require(run.status == 255, run.describe())


def case_check(session):
    harness.needs_root()
    run = session.run("check", cwd=session.directory)
    harness.require(run.status == 0 and run.stdout.strip() == "Looks good.", run.describe())
    probe = ("check", "--no-default-config", "--no-default-config", "-verbosity=0", "--feature")
    run = session.run(*probe, "mnt_id", cwd=session.directory)
    harness.require(run.status == 0 and run.stdout.strip() == "mnt_id is supported", run.describe())
    run = session.run(*probe, "no_such_feature", cwd=session.directory)
    harness.require(run.status == 1 and run.stdout == "", run.describe())


def case_cpuinfo(session):
    """What the CPU of a dump could do is written down, and compared when it is asked for."""
    harness.needs_root()
    images = session.make_directory("cpu")
    run = session.run("cpuinfo", "check", "-D", images)
    harness.require(harness.check_refusal(run) == "IMAGE_MISSING", run.describe())
    run = session.run("cpuinfo", "dump", "-D", images)
    harness.require(run.status == 0 and os.listdir(images) == ["cpuinfo.img"], run.describe())
    for options in ((), ("--cpu-cap",), ("--cpu-cap=none",), ("--cpu-cap=cpu",)):
        run = session.run("cpuinfo", "check", "-D", images, *options)
        harness.require(run.status == 0, run.describe())
    run = session.run("cpuinfo", "dump", "-D", session.path("no_such_directory"))
    harness.require(run.status == 255, run.describe())
    for words in ((), ("other",), ("dump", "check")):
        harness.require(harness.check_refusal(session.run("cpuinfo", *words, "-D", images)) == "BAD_OPTION", str(words))

    subject = session.subject("counter")
    plain, described = session.path("plain"), session.path("described")
    session.dump(subject.pid, plain, "-R")
    harness.require("cpuinfo.img" not in os.listdir(plain), "nobody asked for a description")
    session.dump(subject.pid, described, "--cpu-cap")
    session.wait_gone(subject.pid)
    run = session.restore(plain, "-d", "--cpu-cap", expect_success=False)
    harness.require(harness.check_refusal(run) == "IMAGE_MISSING", run.describe())
    session.restore(described, "-d", "--cpu-cap=all")
    subject.finish()


def case_spellings(session):
    """Abbreviations, glued forms, options before and after the command, a configuration file."""
    harness.needs_root()
    subject = session.subject("counter")
    images = session.make_directory("images")
    config = session.path("stasis.conf")
    with open(config, "w") as file:
        file.write(f"# a comment\n  images-dir {images}  # another\nleave-running\nlog-file \"dump.log\"\nverbosity=4\n")
    forms = ((f"--images-dir={images}", "dump", f"-t{subject.pid}", "-vvvv", "-R", "-odump.log"),
             ("dump", "--tree", subject.pid, "--images", images, "--leave-run", "-v4", "--log-file=dump.log"),
             ("dump", "-Rt", subject.pid, "-D", images, "-verbosity=4", "--restore-detached", "--no-restore-detached"),
             ("dump", "-t", subject.pid, "--config", config))
    for form in forms:
        run = session.run(*form, cwd=session.directory)
        harness.require(run.status == 0, run.describe())
        harness.require(os.path.exists(os.path.join(images, "inventory.img")), f"no images: {run.describe()}")
        for name in os.listdir(images):
            os.unlink(os.path.join(images, name))
        subject.check()
    subject.finish()


def case_options_without_meaning(session):
    """What makes no sense for the action is accepted, has no effect, and is not mentioned."""
    harness.needs_root()
    subject = session.subject("counter")
    images, pidfile = session.path("images"), session.path("root.pid")
    for_dump = ("--pidfile", pidfile, "--root", "/no/such/root", "--pre-dump-mode", "read", "--tcp-established", "--tcp-close",
                "--skip-in-flight", "--restore-detached", "--mntns-compat-mode", "--skip-file-rwx-check", "--status-fd", "0")
    session.dump(subject.pid, images, *for_dump)
    session.wait_gone(subject.pid)
    harness.require(not os.path.exists(pidfile), "a dump made a pid file")
    for_restore = ("--leave-running", "--timeout", "7", "--ghost-limit", "1M", "--skip-in-flight", "--network-lock", "skip",
                   "--pre-dump-mode", "read", "--tcp-established", "--status-fd", "0", "--force-irmap")
    session.restore(images, "-d", "--pidfile", pidfile, *for_restore)
    subject.finish()


def case_work_directory(session):
    """Log, statistics and a relative pid file are in the work directory; the log is there even after a refusal."""
    harness.needs_root()
    subject = session.subject("counter")
    images, work = session.make_directory("images"), session.make_directory("work")
    where = ("-D", images, "-W", work)
    run = session.run("dump", "-t", subject.pid, *where, "-o", "dump.log", log=os.path.join(work, "dump.log"))
    harness.check_success(run)
    session.wait_gone(subject.pid)
    harness.require({"dump.log", "stats-dump"} <= set(os.listdir(work)), f"work directory: {os.listdir(work)}")
    harness.require(os.stat(os.path.join(work, "dump.log")).st_mode & 0o777 == 0o600, "mode of the log file")
    run = session.run("restore", *where, "-d", "-o", "restore.log", "--pidfile", "root.pid", log=os.path.join(work, "restore.log"))
    harness.check_success(run)
    harness.require(harness.read(os.path.join(work, "root.pid")) == str(subject.pid), "the pid file")
    harness.require(os.path.exists(os.path.join(work, "stats-restore")), f"work directory: {os.listdir(work)}")
    run = session.run("dump", "-t", "4194304", *where, "-o", "failed.log")
    harness.check_refusal(run, "NO_SUCH_TASK")
    harness.require("NO_SUCH_TASK" in harness.read(os.path.join(work, "failed.log"), ""), "the log does not hold the error")
    subject.finish()


if __name__ == "__main__":
    sys.exit(harness.run_scenarios(globals()))
