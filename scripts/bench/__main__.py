"""Measures GPB beside the programs that one would use instead. Started by scripts/bench.sh."""

import argparse
import functools
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import content
import hashing
import scale
import swarm
import transfer
from hosts import Unavailable
from machine import describe
from programs import end_all

SCENARIOS = {
    'S1': [transfer.one_big_file],
    'S2': [transfer.many_small_files],
    'S3': [transfer.four_servers],
    'S4': [swarm.slow_links, swarm.loopback],
    'S8': [hashing.one_big_file, hashing.many_small_files],
    'S9': [
        *(functools.partial(transfer.far_server, rtt_ms=rtt_ms, mbit=mbit, loss=loss) for rtt_ms, mbit, loss in transfer.FAR),
        transfer.far_small_files,
        transfer.near_and_far,
        swarm.far_links,
    ],
    'scale': [scale.large_files, scale.many_entries],
}
# These take long, so they are run only when they are named.
NAMED_ONLY = ('scale',)
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
QUICK_SCALE = 0.01
# Source and copy of the largest content, and all the others.
ROOM_BYTES = 5.5 * 2**30
LEGEND = '''Seconds: median (fastest-slowest) of {runs} runs; after each, what arrived was compared with the source.
CPU: user and system time, median. MiB: most anonymous memory at once, looked at 20 times a second.'''


class Bench:
    """What all scenarios share: where and how often they run, and contents, made when first needed."""

    def __init__(self, programs, work, runs, scale):
        self.programs = programs
        self.work = work
        self.runs = runs
        self._scale = scale

    @functools.cached_property
    def big_file(self):
        """Of S1 and S8."""
        return content.one_file(self.work / 'big', self.scaled(2 << 30))

    @functools.cached_property
    def small_files(self):
        """Of S2 and S8."""
        return content.many_files(self.work / 'small', (self.scaled(20_000), 4 << 10), (self.scaled(2_000), 64 << 10))

    @functools.cached_property
    def file_of_four(self):
        """Of S3."""
        return content.one_file(self.work / 'four', self.scaled(400 << 20))

    @functools.cached_property
    def file_from_afar(self):
        """Of S9."""
        return content.one_file(self.work / 'far', self.scaled(256 << 20))

    @functools.cached_property
    def small_files_from_afar(self):
        """Of S9."""
        return content.many_files(self.work / 'far-small', (self.scaled(2_000), 4 << 10))

    def scaled(self, number):
        """A size as it is here."""
        return max(1, round(number * self._scale))


def main():
    """Runs the scenarios that were asked for; 0 if nothing failed."""
    options = parse()
    for number in SIGNALS:
        signal.signal(number, stop)
    if not os.path.exists(f'/proc/self/task/{os.getpid()}/children'):
        sys.exit('this kernel does not tell which children a process has (CONFIG_PROC_CHILDREN)')
    work = None
    try:
        work = Path(tempfile.mkdtemp(prefix='gpb-bench.', dir=options.dir))
        if shutil.disk_usage(work).free < ROOM_BYTES * options.scale:
            sys.exit(f'{options.dir} has too little room: {ROOM_BYTES * options.scale / 2**30:.1f} GiB are needed')
        return run(Bench(options.programs, work, options.runs, options.scale), options.scenario)
    finally:
        ignore_signals()
        end_all()
        if work:
            shutil.rmtree(work, ignore_errors=True)


def run(bench, names):
    """Prints the tables of these scenarios; 1 if anything failed."""
    print(describe(bench.programs))
    if not set(names) <= set(NAMED_ONLY):
        print(f'\n{LEGEND.format(runs=bench.runs)}', flush=True)
    if os.getloadavg()[0] > 1:
        print(f'other programs disturb this: the load is {os.getloadavg()[0]:.1f}', file=sys.stderr)
    failed = False
    for name in names:
        for scenario in SCENARIOS[name]:
            try:
                table = scenario(bench)
            except Unavailable as why:
                print(f'\nskipped: {name}: {why}', flush=True)
                continue
            failed = failed or bool(table.failures)
            print(f'\n{table}', end='', flush=True)
    return int(failed)


def parse():
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog='scripts/bench.sh',
        description='Measures GPB beside the programs that one would use instead, on this machine alone, and prints '
        'tables in Markdown. Programs that are not installed are left out. Root is needed for S3, S4 and S9, and measures in '
        'networks that nothing leaves.',
    )
    parser.add_argument(
        'scenario', nargs='*',
        help='S1 one big file, S2 many small files, S3 four servers, S4 swarms, S8 hashing, S9 long round trips (these are run if none is named); '
        'scale: up to 1,000,000 files and 1 TiB, one run of each')
    parser.add_argument('--runs', type=int, help='runs of each program; the median is shown (5)')
    parser.add_argument('--scale', type=float, help='multiplies all sizes (1)')
    parser.add_argument('--quick', action='store_true', help=f'one run and a scale of {QUICK_SCALE}, to see that all works')
    parser.add_argument('--dir', help='where files are written (/dev/shm, else $TMPDIR or /tmp)')
    parser.add_argument('--programs', type=Path, required=True, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := set(options.scenario) - set(SCENARIOS):
        parser.error(f'there is no scenario {", ".join(sorted(unknown))}, only {", ".join(SCENARIOS)}')
    options.scenario = options.scenario or [name for name in SCENARIOS if name not in NAMED_ONLY]
    options.runs = options.runs or (1 if options.quick else 5)
    options.scale = options.scale or (QUICK_SCALE if options.quick else 1)
    options.programs = options.programs.absolute()
    if not options.dir:
        options.dir = '/dev/shm' if os.access('/dev/shm', os.W_OK) else tempfile.gettempdir()
    return options


def stop(number, _frame):
    """Ends this program as the signal would, but by the way that removes everything."""
    ignore_signals()
    sys.exit(128 + number)


def ignore_signals():
    """A second signal must not keep anything from being removed."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


sys.exit(main())
