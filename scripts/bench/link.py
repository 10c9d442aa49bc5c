"""A link with delay, rate and loss between two network namespaces, in user space: two TAP devices and a thread each way.

The kernel hands over whole segments of up to 64 KiB (`IFF_VNET_HDR`, TSO), so that a gigabit costs a few thousand packets
a second. With loss it cuts them as a network card would, since a loss is one of a packet."""

import ctypes
import fcntl
import os
import random
import struct
import subprocess
import threading
import time
from collections import deque

TUNSETIFF, TUNSETOFFLOAD, TUNSETVNETHDRSZ = 0x400454CA, 0x400454D0, 0x400454D8
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
OFFLOADS = 0x01 | 0x02 | 0x04  # checksums, TSO4, TSO6
CLONE_NEWNET = 0x40000000
HEADER = 10  # of a virtio packet
QUEUE_S = 0.2  # of a narrow link: packets that would wait for longer are dropped


def tap(name: str, namespace: str, offloads: bool) -> int:
    """Opens a TAP device in a namespace (a path); it lives as long as the descriptor."""
    fds = []

    def inside() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        ns = os.open(namespace, os.O_RDONLY)
        if libc.setns(ns, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        os.close(ns)
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
        if offloads:
            fcntl.ioctl(fd, TUNSETOFFLOAD, OFFLOADS)
        fds.append(fd)

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    if not fds:
        raise RuntimeError(f"no TAP device in {namespace}")
    return fds[0]


class Way:
    """One direction: reads packets of one device, writes them to the other one when their time has come."""

    def __init__(self, source: int, to: int, delay_s: float, rate: float | None, loss: float, seed: int):
        self.source, self.to, self.delay_s, self.rate, self.loss = source, to, delay_s, rate, loss
        self.random = random.Random(seed)
        self.queue: deque[tuple[float, bytes]] = deque()
        self.more = threading.Condition()
        self.free_at = 0.0
        self.passed = self.dropped = 0
        for run in (self.read, self.write):
            threading.Thread(target=run, daemon=True).start()

    def read(self) -> None:
        queue_s = max(QUEUE_S, self.delay_s * 2)
        while True:
            packet = os.read(self.source, 1 << 17)
            now = time.monotonic()
            if self.loss and self.random.random() < self.loss:
                self.dropped += 1
                continue
            at = now
            if self.rate:
                if self.free_at - now > queue_s:
                    self.dropped += 1
                    continue
                self.free_at = at = max(self.free_at, now) + (len(packet) - HEADER) / self.rate
            self.passed += 1
            self.queue.append((at + self.delay_s, packet))
            if len(self.queue) == 1:
                with self.more:
                    self.more.notify()

    def write(self) -> None:
        while True:
            if not self.queue:
                with self.more:
                    self.more.wait_for(lambda: self.queue, 0.05)
                continue
            at, packet = self.queue[0]
            wait = at - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            try:
                os.write(self.to, packet)
            except OSError:
                self.dropped += 1
            self.queue.popleft()


class Link:
    """Both ways between `eth` in one namespace and in another one."""

    def __init__(self, a: str, b: str, names: tuple[str, str], rtt_ms: float, mbit: float | None = None, loss: float = 0.0,
                 seed: int = 1):
        self.fds = [tap(name, ns, loss == 0) for name, ns in zip(names, (a, b))]
        rate = mbit * 125_000 if mbit else None
        one, other = self.fds
        self.ways = [Way(one, other, rtt_ms / 2000, rate, loss, seed), Way(other, one, rtt_ms / 2000, rate, loss, seed + 1)]
