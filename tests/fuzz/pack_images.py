#!/usr/bin/env python3
"""Makes seeds of the fuzzers from the image directory of a small dump: pack_images.py IMAGES CORPUS

CORPUS/plan_fuzz/NAME gets the record files of the dump as one input, CORPUS/pagemap_fuzz/NAME a page map and
CORPUS/xsave_fuzz/NAME the extended state of the root, where NAME is the name of the directory IMAGES.
"""
import pathlib
import struct
import sys

LARGEST_SEED = 16384


def packed(files):
    out = b""
    for name, content in files:
        out += bytes([len(name)]) + name.encode() + struct.pack("<H", len(content)) + content
    return out


def fields(message):
    """(number, value) of the fields of a packed message; bytes for length-delimited ones."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7f) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        key = varint()
        kind = key & 7
        if kind == 0:
            yield key >> 3, varint()
        elif kind == 2:
            size = varint()
            yield key >> 3, message[at:at + size]
            at += size
        else:
            size = 8 if kind == 1 else 4
            yield key >> 3, message[at:at + size]
            at += size


def submessage(message, number):
    return next(value for field, value in fields(message) if field == number)


def main():
    images, corpus = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    records = [(p.name, p.read_bytes()) for p in sorted(images.glob("*.img")) if not p.name.startswith("pages-")]
    seed = packed(records)
    if len(seed) > LARGEST_SEED:
        sys.exit(f"{images}: {len(seed)} bytes are too many for a seed, dump something smaller")
    pagemap = next(content for name, content in records if name.startswith("pagemap-"))
    pages = next(images.glob("pages-*.img")).stat().st_size // 4096
    core = next(content for name, content in records if name.startswith("core-"))
    thread_info = submessage(core[12:], 2)
    fpregs = submessage(thread_info, 3)
    for target, content in (("plan_fuzz", struct.pack("<H", pages) + seed), ("pagemap_fuzz", struct.pack("<H", pages) + pagemap),
                            ("xsave_fuzz", b"\0" + fpregs)):
        directory = corpus / target
        directory.mkdir(parents=True, exist_ok=True)
        (directory / images.name).write_bytes(content)


if __name__ == "__main__":
    main()
