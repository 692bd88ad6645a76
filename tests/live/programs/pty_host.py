#!/usr/bin/env python3
"""Drives a program in a pseudo terminal: what is appended to the file `keys` is typed, what the program shows is
appended to the file `screen`. pty_host.py DIRECTORY PROGRAM [ARGUMENT...]"""
import fcntl
import os
import select
import struct
import sys
import termios

directory = sys.argv[1]
os.closerange(3, 256)  # what the test inherited
master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY)
TIOCSPTLCK, TIOCGPTN = 0x40045431, 0x80045430
fcntl.ioctl(master, TIOCSPTLCK, struct.pack("i", 0))
index = struct.unpack("i", fcntl.ioctl(master, TIOCGPTN, struct.pack("i", 0)))[0]
fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
child = os.fork()
if child == 0:
    os.setsid()
    slave = os.open(f"/dev/pts/{index}", os.O_RDWR)  # becomes the controlling terminal
    for number in range(3):
        os.dup2(slave, number)
    os.closerange(3, 256)
    os.chdir(directory)
    os.environ.update(TERM="vt100", LC_ALL="C", HOME=directory, PS1="prompt> ")
    os.execvp(sys.argv[2], sys.argv[2:])
keys = os.open(os.path.join(directory, "keys"), os.O_RDONLY | os.O_CREAT, 0o600)
screen = os.open(os.path.join(directory, "screen"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
while True:
    typed = os.read(keys, 4096)
    if typed:
        os.write(master, typed)
    if select.select([master], [], [], 0.01)[0]:
        try:
            shown = os.read(master, 65536)
        except OSError:
            break
        if not shown:
            break
        os.write(screen, shown)
