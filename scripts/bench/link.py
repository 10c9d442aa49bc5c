"""A link with length, rate and losses between two network namespaces: two TAP devices, and a program that moves the packets.

The kernel hands over and takes segments of up to 64 KiB (`IFF_VNET_HDR`, TSO), so that a gigabit costs a few thousand
packets a second. With losses it cuts them first, as a network card would, since what is lost is a packet."""

import atexit
import ctypes
import fcntl
import functools
import os
import shutil
import struct
import subprocess
import tempfile
import threading
from pathlib import Path

TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
CHECKSUMS, TSO4, TSO6 = 1, 2, 4
CLONE_NEWNET = 0x40000000
SOURCE = Path(__file__).parent / 'long_link.rs'


class Link:
    """Both directions; its devices vanish when it is closed."""

    def __init__(self, here, there, rtt_s, mbit=None, loss=0.0, seed=1):
        """`here` and `there`: the namespace as a path, and the name of the device in it."""
        argv = ['setpriv', '--pdeathsig', 'KILL', program(), *(str(n) for n in (round(rtt_s * 1000), mbit or 0, loss, seed))]
        ends = [open_tap(*here, segments=not loss), open_tap(*there, segments=not loss)]
        # A process of its own for each link, so that many do not wait for each other.
        self._mover = subprocess.Popen(argv, stdin=ends[0], stdout=ends[1], preexec_fn=os.setpgrp)
        for end in ends:
            os.close(end)

    def close(self):
        """Ends it."""
        self._mover.kill()
        self._mover.wait()


@functools.cache
def program():
    """The program that moves packets, compiled for this run."""
    place = tempfile.mkdtemp(prefix='gpb-link.')
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    built = os.path.join(place, 'long_link')
    subprocess.run(['rustc', '--edition', '2024', '-O', '-o', built, SOURCE], check=True)
    return built


def open_tap(namespace, name, segments):
    """A TAP device in a namespace, which lives as long as the descriptor."""
    opened = []

    def make():
        with open(namespace) as place:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.setns(place.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), 'setns')
        tap = os.open('/dev/net/tun', os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(tap, TUNSETIFF, struct.pack('16sH22x', name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
        if segments:
            fcntl.ioctl(tap, TUNSETOFFLOAD, CHECKSUMS | TSO4 | TSO6)
        opened.append(tap)

    # A thread of its own goes there, and does not come back.
    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if not opened:
        raise OSError(f'there can be no TAP device {name}')
    return opened[0]
