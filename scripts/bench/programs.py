"""Programs that are started, waited for, weighed and ended."""

import os
import re
import select
import signal
import subprocess
import threading
import time
from dataclasses import dataclass

# Nothing of the user's settings is for a measurement, and every program finds an empty home.
ENVIRONMENT = {'PATH': os.environ.get('PATH', os.defpath) + ':/usr/sbin:/sbin', 'LC_ALL': 'C', 'HOME': '/nonexistent'}
# What takes longer than this does not work.
TIME_LIMIT_S = 900
STOP_LIMIT_S = 5
SAMPLES_PER_S = 20
TICKS_PER_S = os.sysconf('SC_CLK_TCK')


class Failed(Exception):
    """A program did not do what it was started for."""


@dataclass
class Sample:
    """What one run cost: the client's side first, then the servers'."""

    seconds: float
    cpu_s: tuple
    memory: tuple


class Program:
    """A program in a process group of its own, so that its children end with it."""

    def __init__(self, argv, log, speaks=False):
        """With `speaks`, its standard output is read by `wait_line`; all else goes to the file `log`."""
        self.argv = [str(a) for a in argv]
        self.log = log
        with open(log, 'ab') as out:
            self._child = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if speaks else out,
                stderr=out,
                env=ENVIRONMENT,
                # No session: Linux shares the processor out by session, whatever priority this program was given.
                preexec_fn=os.setpgrp,
            )
        self.pid = self._child.pid
        self.cpu_s = 0.0
        self._said = b''

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def wait(self):
        """Waits for a good end; then `cpu_s` is what it used, children included."""
        if not self._ends_within(TIME_LIMIT_S):
            raise self.failed(f'not done after {TIME_LIMIT_S} s')
        if self._child.returncode != 0:
            raise self.failed(f'exit code {self._child.returncode}')

    def wait_line(self, pattern):
        """Waits until it says a line that matches."""
        [(_, said)] = wait_lines([self], pattern)
        return said

    def said_line(self, pattern):
        """The groups of the first line so far that matches; `None` if none does."""
        whole_lines = self._said[: self._said.rfind(b'\n') + 1]
        match = re.search(pattern.encode(), whole_lines, re.MULTILINE)
        return match and [group.decode() for group in match.groups()]

    def hear(self):
        """Takes what it says next; whether there was anything."""
        more = os.read(self.fileno(), 65536)
        self._said += more
        return bool(more)

    def fileno(self):
        """What is readable when it says something, for `select`."""
        return self._child.stdout.fileno()

    def wait_port(self, port):
        """Waits until it listens at a TCP port, seen in the namespace where it runs."""
        listens = re.compile(rf'^\s*\d+: [0-9A-F]+:{port:04X} \S+ 0A ', re.MULTILINE)
        deadline = time.monotonic() + TIME_LIMIT_S
        while time.monotonic() < deadline:
            if listens.search(read_text(f'/proc/{self.pid}/net/tcp')):
                return
            if self._ends_within(0.01):
                raise self.failed('ended')
        raise self.failed(f'does not listen at {port}')

    def kill(self):
        """Ends it and its children without a chance to say goodbye."""
        signal_group(self.pid, signal.SIGKILL)
        self._ends_within(STOP_LIMIT_S)

    def stop(self):
        """Ends it and its children."""
        if self._child.returncode is None:
            signal_group(self.pid, signal.SIGTERM)
            if not self._ends_within(STOP_LIMIT_S):
                signal_group(self.pid, signal.SIGKILL)
                self._ends_within(STOP_LIMIT_S)
        if self._child.stdout:
            self._child.stdout.close()

    def _ends_within(self, seconds):
        """Whether it has ended, and if so, how; the descriptor tells at once, without looking again and again."""
        if self._child.returncode is not None:
            return True
        descriptor = os.pidfd_open(self.pid)
        try:
            ended = select.poll()
            ended.register(descriptor, select.POLLIN)
            if not ended.poll(seconds * 1000):
                return False
        finally:
            os.close(descriptor)
        _, status, usage = os.wait4(self.pid, 0)
        self._child.returncode = os.waitstatus_to_exitcode(status)
        self.cpu_s = usage.ru_utime + usage.ru_stime
        return True

    def failed(self, why):
        """An error that tells what it logged and said last."""
        with open(self.log, errors='replace') as log:
            last = ' '.join((log.read()[-300:] + self._said[-300:].decode(errors='replace')).split())
        return Failed(f'{os.path.basename(self.argv[0])}: {why}: {last or "nothing logged"}')


def wait_lines(programs, pattern):
    """Waits until each of them says a line that matches; for each, when it did and the groups of the line."""
    deadline = time.monotonic() + TIME_LIMIT_S
    heard = {}
    fresh = list(programs)
    while True:
        for program in fresh:
            if (said := program.said_line(pattern)) is not None:
                heard[program] = (time.monotonic(), said)
        waiting = [program for program in programs if program not in heard]
        if not waiting:
            return [heard[program] for program in programs]
        fresh, _, _ = select.select(waiting, [], [], max(0, deadline - time.monotonic()))
        silent = [program for program in fresh if not program.hear()] or ([] if fresh else waiting)
        if silent:
            raise silent[0].failed(f'never said `{pattern}`')


class MemoryWatch(threading.Thread):
    """Looks again and again how much anonymous memory each side has, and keeps the most of each."""

    def __init__(self, *sides, samples_per_s=SAMPLES_PER_S):
        """Each side is a list of the pids whose trees belong to it."""
        super().__init__(daemon=True)
        self._every_s = 1 / samples_per_s
        self._sides = sides
        self._over = threading.Event()
        self.peaks = [0] * len(sides)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self.join()

    def run(self):
        over = False
        while not over:
            # The last look is after what was waited for.
            over = self._over.wait(self._every_s)
            for i, pids in enumerate(self._sides):
                self.peaks[i] = max(self.peaks[i], sum(anonymous_bytes(pid) for pid in pids))


def measure(argv, log, servers=(), until=None, samples_per_s=SAMPLES_PER_S):
    """Runs a program to its end, or `until` it says a line, and weighs it and the servers that run meanwhile."""
    serving = [server.pid for server in servers]
    before = sum(cpu_seconds(pid) for pid in serving)
    started = time.monotonic()
    client = Program(argv, log, speaks=until is not None)
    with client, MemoryWatch([client.pid], serving, samples_per_s=samples_per_s) as watch:
        if until is None:
            client.wait()
            seconds, cpu_s = time.monotonic() - started, client.cpu_s
        else:
            client.wait_line(until)
            seconds, cpu_s = time.monotonic() - started, cpu_seconds(client.pid)
        server_cpu_s = sum(cpu_seconds(pid) for pid in serving) - before
    return Sample(seconds, (cpu_s, server_cpu_s), tuple(watch.peaks))


def cpu_seconds(pid):
    """What a process and its descendants have used so far, those that ended and were waited for included."""
    ticks = 0
    for each in tree(pid):
        fields = read_text(f'/proc/{each}/stat').rpartition(')')[2].split()
        ticks += sum(int(field) for field in fields[11:15])
    return ticks / TICKS_PER_S


def anonymous_bytes(pid):
    """Memory of a process and its descendants that no file is behind."""
    total = 0
    for each in tree(pid):
        found = re.search(r'^RssAnon:\s+(\d+) kB', read_text(f'/proc/{each}/status'), re.MULTILINE)
        total += int(found[1]) * 1024 if found else 0
    return total


def tree(pid):
    """A process and its descendants. Those that a thread beside the main one started are not seen: none here does."""
    found = [pid]
    for each in found:
        found += [int(child) for child in read_text(f'/proc/{each}/task/{each}/children').split()]
    return found


def read_text(path):
    """What a file of /proc says; nothing when its process is gone."""
    try:
        with open(path, errors='replace') as file:
            return file.read()
    except OSError:
        return ''


def signal_group(pid, number):
    """Signals a program and what it started, also in the moment before it has a group of its own."""
    for send in (os.killpg, os.kill):
        try:
            return send(pid, number)
        except ProcessLookupError:
            continue


def end_all():
    """Ends whatever was started here and still runs, wherever we were interrupted."""
    for child in tree(os.getpid())[1:]:
        signal_group(child, signal.SIGKILL)
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return
