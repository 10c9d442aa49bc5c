"""A link with length, rate and losses between two network namespaces: two TAP devices, and a thread each way.

The kernel hands over and takes segments of up to 64 KiB (`IFF_VNET_HDR`, TSO), so that a gigabit costs a few thousand
packets a second. With losses it cuts them first, as a network card would, since what is lost is a packet."""

import ctypes
import fcntl
import os
import random
import select
import struct
import threading
import time
from collections import deque

TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
CHECKSUMS, TSO4, TSO6 = 1, 2, 4
CLONE_NEWNET = 0x40000000
# In front of each packet, see `struct virtio_net_hdr`.
HEADER_LEN = 10
PACKET_LEN_MAX = 1 << 17
# Packets that would wait for longer at the narrow place, and for longer than the round trip, are dropped there.
QUEUE_S = 0.02
# Most packets on their way in one direction.
PACKETS_MAX = 50_000
LOOK_S = 0.05


class Link:
    """Both directions; its devices vanish when it is closed."""

    def __init__(self, here, there, rtt_s, mbit=None, loss=0.0, seed=1):
        """`here` and `there`: the namespace as a path, and the name of the device in it."""
        self._over = threading.Event()
        self._ends = [open_tap(*here, segments=not loss), open_tap(*there, segments=not loss)]
        one, other = self._ends
        rate = mbit * 125_000 if mbit else None
        self._ways = [
            Way(source, to, rtt_s, rate, loss, seed * 2 + number, self._over)
            for number, (source, to) in enumerate([(one, other), (other, one)])
        ]

    def close(self):
        """Ends both threads."""
        self._over.set()
        for way in self._ways:
            way.join()
        for end in self._ends:
            os.close(end)


class Way(threading.Thread):
    """One direction: what one device sends is given to the other one when its time has come."""

    def __init__(self, source, to, rtt_s, rate, loss, seed, over):
        super().__init__(daemon=True)
        self._source, self._to, self._over = source, to, over
        self._delay_s, self._rate, self._loss = rtt_s / 2, rate, loss
        self._queue_s = max(QUEUE_S, rtt_s)
        self._random = random.Random(seed)
        self._queue = deque()
        self._free_at = 0.0
        self.start()

    def run(self):
        ready = select.poll()
        ready.register(self._source, select.POLLIN)
        while not self._over.is_set():
            now = time.monotonic()
            while self._queue and self._queue[0][0] <= now:
                self._give(self._queue.popleft()[1])
            due = self._queue[0][0] - now if self._queue else LOOK_S
            # In whole milliseconds: what is due sooner is not waited for.
            if ready.poll(int(min(due, LOOK_S) * 1000)):
                self._take(os.read(self._source, PACKET_LEN_MAX))

    def _take(self, packet):
        now = time.monotonic()
        leaves = now
        if self._loss and self._random.random() < self._loss:
            return
        if self._rate:
            if self._free_at - now > self._queue_s:
                return
            self._free_at = leaves = max(self._free_at, now) + (len(packet) - HEADER_LEN) / self._rate
        if len(self._queue) < PACKETS_MAX:
            self._queue.append((leaves + self._delay_s, packet))

    def _give(self, packet):
        try:
            os.write(self._to, packet)
        except OSError:
            # A device that is down drops it, as a cable would.
            pass


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
