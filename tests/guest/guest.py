"""Another kernel, emulated: it sees the file system of this machine, read-only, and runs one command as root.

The kernel is one of Debian's packages, unpacked (`./dev setup guest`); what a test needs beyond it comes from this
machine through a 9p file system. /run and /dev/shm (also TMPDIR) are memory of the guest. Nothing of it outlives it.
"""
import base64
import gzip
import os
import re
import shutil
import subprocess
import tempfile

# In the order in which they can be loaded.
MODULES = ("drivers/virtio/virtio_ring", "drivers/virtio/virtio", "drivers/virtio/virtio_pci_legacy_dev",
           "drivers/virtio/virtio_pci_modern_dev", "drivers/virtio/virtio_pci", "fs/netfs/netfs", "fs/fscache/fscache",
           "net/9p/9pnet", "net/9p/9pnet_virtio", "fs/9p/9p")
INIT = """#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
for module in %(modules)s; do $b insmod /modules/$module.ko; done
$b mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro host /root
for directory in proc sys dev; do $b mount --move /$directory /root/$directory; done
$b mkdir -p /root/dev/shm /root/dev/pts
for directory in dev/shm run; do $b mount -t tmpfs tmpfs /root/$directory; done
$b mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /root/dev/pts
$b mount -t securityfs securityfs /root/sys/kernel/security
$b ip link set lo up
command=$($b sed 's/.*GUEST_COMMAND=\\([^ ]*\\).*/\\1/' /root/proc/cmdline | $b base64 -d)
TMPDIR=/dev/shm PATH=%(path)s $b chroot /root /bin/sh -c "$command"
echo "guest-status $?"
$b poweroff -f
"""
LONGEST_COMMAND = 1400  # in base64 it has to fit into the kernel's command line


class Missing(Exception):
    """What this machine lacks for it."""


def kernel_in(directory):
    """The unpacked kernel package: its release."""
    try:
        releases = sorted(name.removeprefix("vmlinuz-") for name in os.listdir(os.path.join(directory, "boot"))
                          if name.startswith("vmlinuz-"))
    except OSError:
        releases = []
    if not releases:
        raise Missing("a kernel package, unpacked (./dev setup guest)")
    return releases[-1]


def cpio_entry(name, mode, content=b""):
    """One file of an archive as initramfs wants it (newc)."""
    encoded = name.encode() + b"\0"
    fields = (0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
    return head + b"\0" * (-len(head) % 4) + content + b"\0" * (-len(content) % 4)


def initramfs(directory, release):
    def file(path):
        with open(path, "rb") as opened:
            return opened.read()

    busybox = shutil.which("busybox")
    if busybox is None:
        raise Missing("busybox (busybox-static)")
    modules = os.path.join(directory, "lib/modules", release, "kernel")
    there = [module for module in MODULES if os.path.exists(f"{modules}/{module}.ko")]
    init = INIT % {"modules": " ".join(map(os.path.basename, there)), "path": "/usr/sbin:/usr/bin:/sbin:/bin"}
    parts = [cpio_entry(name, 0o40755) for name in ("bin", "modules", "root", "proc", "sys", "dev")]
    parts += [cpio_entry("init", 0o100755, init.encode()), cpio_entry("bin/busybox", 0o100755, file(busybox))]
    parts += [cpio_entry(f"modules/{os.path.basename(module)}.ko", 0o100644, file(f"{modules}/{module}.ko"))
              for module in there]
    return gzip.compress(b"".join(parts) + cpio_entry("TRAILER!!!", 0), 1)


def run(kernel_directory, command, timeout_s):
    """Boots, runs `command` by sh, ends. Its output and its status, None if it never came so far."""
    emulator = shutil.which("qemu-system-x86_64")
    if emulator is None:
        raise Missing("an emulator (qemu-system-x86)")
    release = kernel_in(kernel_directory)
    assert len(command) <= LONGEST_COMMAND, command
    encoded = base64.b64encode(command.encode()).decode()
    with tempfile.NamedTemporaryFile(suffix=".initramfs") as archive:
        archive.write(initramfs(kernel_directory, release))
        archive.flush()
        arguments = [emulator, "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2G", "-nographic",
                     "-nodefaults", "-serial", "stdio", "-no-reboot", "-kernel", f"{kernel_directory}/boot/vmlinuz-{release}",
                     "-initrd", archive.name, "-virtfs",
                     "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap",
                     "-append", f"console=ttyS0 quiet panic=-1 GUEST_COMMAND={encoded}"]
        process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            output, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
    text = output.decode(errors="replace").replace("\r", "")
    status = re.search(r"^guest-status (\d+)$", text, re.MULTILINE)
    return text, int(status.group(1)) if status else None
