#!/usr/bin/env python3
"""Damaged images: a clear error each time, no crash, no hang, no half restore; and the good ones still work."""
import os
import re
import shutil
import sys

import harness

MANIFEST = "stasis-manifest"
NOT_IMAGES = re.compile(r"stats-.*|.*\.log|.*\.pid")
PAGES = re.compile(r"pages-.*\.img")
BAD = "IMAGE_.*"
RESTORE_TIMEOUT_S = 10


class Images:
    """A dumped subject with its good images; damaged copies are made from them."""

    def __init__(self, session, name="tree_cow"):
        harness.needs_root()
        self.session = session
        self.subject = session.subject(name)
        self.good = session.path("good")
        self.bad = session.path("bad")
        session.dump(self.subject.pid, self.good)
        session.wait_gone(self.subject.pid)
        session.reap()
        self.names = sorted(name for name in os.listdir(self.good) if not NOT_IMAGES.fullmatch(name))
        harness.require("inventory.img" in self.names, f"no inventory among {self.names}")

    def content(self, name):
        with open(os.path.join(self.good, name), "rb") as file:
            return file.read()

    def damage(self, name, content, manifest=True):
        """A copy in which one file holds something else (None: is missing)."""
        shutil.rmtree(self.bad, ignore_errors=True)
        shutil.copytree(self.good, self.bad, copy_function=os.link)  # only reads follow; what changes is replaced
        path = os.path.join(self.bad, name)
        os.unlink(path)
        if content is not None:
            with open(path, "wb") as file:
                file.write(content)
        if not manifest and os.path.exists(os.path.join(self.bad, MANIFEST)):
            os.unlink(os.path.join(self.bad, MANIFEST))

    def run(self):
        return self.session.run("restore", "-D", self.bad, "-d", timeout_s=RESTORE_TIMEOUT_S)

    def expect_refused(self, what, reason=BAD):
        run = self.run()
        try:
            harness.check_refusal(run, reason)
        except harness.Failure as failure:
            raise harness.Failure(f"{what}: {failure}") from None
        self.expect_nothing_left(what)
        return run

    def expect_nothing_left(self, what):
        self.session.reap()
        left = harness.children_of(os.getpid())
        harness.require(not left, f"{what}: a refused restore left {left}")

    def finish(self):
        self.session.restore(self.good, "-d")
        self.subject.finish()


def lengths_of(size):
    return sorted({length for length in (0, 7, 8, 11, 13, size // 2, size - 1) if 0 <= length < size})


def case_missing(session):
    images = Images(session)
    for name in images.names:
        if name == MANIFEST:
            continue
        images.damage(name, None)
        run = images.expect_refused(f"{name} is missing", "IMAGE_MISSING" if name != "inventory.img" else BAD)
        harness.require(name in run.stderr, f"the error does not name {name}: {run.stderr}")
    images.finish()


def case_truncated(session):
    images = Images(session)
    for name in images.names:
        content = images.content(name)
        for length in lengths_of(len(content)):
            images.damage(name, content[:length])
            images.expect_refused(f"{name} cut to {length} of {len(content)} bytes")
    images.finish()


def case_flipped(session):
    images = Images(session)
    for name in images.names:
        if PAGES.fullmatch(name):
            continue  # contents of pages carry no checksum
        content = images.content(name)
        for position in lengths_of(len(content)):
            changed = bytearray(content)
            changed[position] ^= 0x21
            images.damage(name, bytes(changed))
            images.expect_refused(f"{name}, byte {position} changed")
    images.finish()


def case_without_manifest(session):
    """Images without the list of checksums, as other programs write them: every damage is met by the readers alone.
    What stays a valid set may be restored; nothing may crash, hang or leave half a tree."""
    images = Images(session)
    images.damage("inventory.img", images.content("inventory.img"), manifest=False)
    for name in images.names:
        if name == MANIFEST:
            continue
        content = images.content(name)
        for length in lengths_of(len(content)):
            images.damage(name, content[:length], manifest=False)
            what = f"{name} cut to {length} of {len(content)} bytes, no manifest"
            run = images.run()
            harness.require(run.status in (0, 1), f"{what}: {run.describe()}")
            if run.status == 0:
                images.subject.kill()
            else:
                harness.check_refusal(run)
            images.expect_nothing_left(what)
    images.finish()


def patched(content, header_bytes, wanted_start, new_start):
    harness.require(content[header_bytes:].startswith(wanted_start), f"unexpected start {content[:header_bytes + 4].hex()}")
    return content[:header_bytes] + new_start + content[header_bytes + len(new_start):]


def case_other_version(session):
    images = Images(session)
    # Magic and record size, then field 1, img_version, as a varint.
    images.damage("inventory.img", patched(images.content("inventory.img"), 8, b"\x08\x02", b"\x08\x7f"), manifest=False)
    images.expect_refused("a future version", "IMAGE_VERSION")
    images.finish()


def case_other_architecture(session):
    images = Images(session)
    name = f"core-{images.subject.pid}.img"
    # Two magics and the record size, then field 1, mtype; 3 is AArch64.
    images.damage(name, patched(images.content(name), 12, b"\x08\x01", b"\x08\x03"), manifest=False)
    images.expect_refused("another architecture", "IMAGE_ARCH")
    images.finish()


def case_empty_directory(session):
    harness.needs_root()
    run = session.run("restore", "-d", "-D", session.make_directory("empty"))
    harness.check_refusal(run, "IMAGE_MISSING")


def case_failed_dump_is_no_dump(session):
    """A refused dump into the directory of an older one leaves nothing that could be restored by mistake."""
    images = Images(session, "counter")
    locker = session.subject("refuse_file_lock", directory="locker")
    shutil.copytree(images.good, images.bad)
    run = session.run("dump", "-t", locker.pid, "-D", images.bad)
    harness.check_refusal(run)
    harness.require("holds an older dump" in run.stderr or "holds no dump" in run.stderr, run.describe())
    run = images.run()
    if run.status == 0:  # the older dump was not touched at all
        images.subject.kill()
    else:
        harness.check_refusal(run, BAD)
    locker.finish()
    images.finish()


if __name__ == "__main__":
    sys.exit(harness.run_scenarios(globals()))
