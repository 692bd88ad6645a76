#!/usr/bin/env python3
"""The example programs of the libraries do what their READMEs say."""
import os
import re
import subprocess
import sys

import harness


def run_example(session, name, *arguments):
    program = os.path.join(os.path.dirname(session.stasis), name)
    done = subprocess.run([program, *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
    return done.returncode, done.stdout, done.stderr


def case_call_in_a_foreign_process(session):
    subject = session.subject("counter")
    for _ in range(3):
        status, out, err = run_example(session, "tracee_example", subject.pid)
        harness.require(status == 0 and out == f"pid {subject.pid} (counter) says: I am {subject.pid}\n", f"{status} {out} {err}")
        subject.check()
    subject.finish()
    status, out, err = run_example(session, "tracee_example", subject.pid)
    harness.require(status == 1 and "NO_SUCH_TASK" in err and not out, f"of a pid that is gone: {status} {out} {err}")


def case_image_directory(session):
    subject = session.subject("threads")
    images = session.path("images")
    session.dump(subject.pid, images)
    session.wait_gone(subject.pid)
    status, out, err = run_example(session, "image_example", images)
    harness.require(status == 0 and "manifest verified" in out and "files.img: " in out, f"{status} {out} {err}")
    process = re.search(rf"^pid {subject.pid} \(threads\): (\d+) threads, (\d+) pages in (\d+) ranges$", out, re.MULTILINE)
    harness.require(process and int(process[1]) > 1 and int(process[2]) >= int(process[3]) > 0, out)
    with open(os.path.join(images, "pstree.img"), "r+b") as file:
        file.truncate(9)
    status, out, err = run_example(session, "image_example", images)
    harness.require(status == 1 and "IMAGE_" in err, f"of a truncated directory: {status} {out} {err}")


if __name__ == "__main__":
    sys.exit(harness.run_scenarios(globals()))
