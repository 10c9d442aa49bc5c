"""S4: many fetch the same file at once, and give each other what they have of it.

Bounds, with F the time in which the seeder can send the whole file once, M the number of its chunks, N the number of
leechers, and no limit on what a host receives:

* Everybody as fast as the seeder: (1 + floor(log2 N) / M) F (Mundinger, Weber, Weiss 2008). The last chunk leaves the
  seeder after F at the earliest, and in the time of a chunk at most twice as many have it as before.
* Some slower: nobody is helped by that, so the same holds. What the leechers receive somebody sends, so N F over the sum
  of all upload rates, in those of the seeder, holds too; it is the smaller one unless most are much slower.
* Some killed after a time K, as many others joining then: those that stay are held to the first bound for their number. At
  K nobody can have more than what the seeder has sent by then, so those that stay lack F - K each, and the new ones F
  each; what the killed ones got is counted as free. All that are there share their rates for this, which takes at least
  (stay (F - K) + new F) / (1 + stay + new) from K on. No new one has to be the last, but all of them together with
  those that stay do, so the last of the new ones is held to this or to what the first bound leaves after K, if that is
  longer.
"""

import contextlib
import functools
import shutil
import statistics
import time
from dataclasses import dataclass

import content
from hosts import FarSwarm, Loopback, Swarm
from programs import Failed, MemoryWatch, Program, Sample, cpu_seconds, wait_lines
from table import MIB, Table, amount
from tools import GpbSwarm, Libtorrent
from transfer import PAYLOAD_SHARE

FILE_BYTES = 64 << 20
MBIT, SLOW_MBIT = 50, 5
LEECHERS, MANY = 8, 16
REPLACED = 2
FAR_RTT_MS = 50
# Part of the expected time after which some are replaced.
REPLACED_AFTER = 0.5
LOOPBACK_BYTES = 512 << 20
LOOPBACK_LEECHERS = 3
CHUNK_LEN_MIN, CHUNK_LEN_MAX, CHUNKS_AIM = 256 << 10, 2 << 20, 4096


@dataclass
class Crowd:
    """Who fetches: hosts that are there from the start; the last ones of these are replaced after a time."""

    hosts: list
    fresh: tuple = ()
    replaced_after_s: float = 0


@dataclass
class Outcome(Sample):
    """What one run cost, and how good it was."""

    # Times of those that stayed, then of those that joined, if any, over their bounds.
    over_bounds: tuple
    copies: float
    twice: float


@dataclass
class Bounds:
    """The least seconds of those that stay from the start, and of those that join, from then on."""

    staying_s: float
    joining_s: float = 0


def slow_links(bench):
    """The seeder and each leecher with a link of its own."""
    source = content.one_file(bench.work / 'swarm', bench.scaled(FILE_BYTES))
    title = f'S4: swarms for one file of {amount(source.bytes)}, everybody sends {MBIT} Mbit/s'
    table = Table(title, ('/ bound', 'copies from the seeder', 'fetched twice'), ('leechers', 'seeder'))
    work = bench.work / 'S4'
    try:
        with Swarm(MBIT, [MBIT] * MANY + [SLOW_MBIT]) as hosts:
            all_s = least_s(source, LEECHERS)
            some, many, slow = hosts.leechers[:LEECHERS], hosts.leechers[:MANY], hosts.leechers[MANY]
            fresh = hosts.leechers[LEECHERS : LEECHERS + REPLACED]
            rates = [1] * LEECHERS + [SLOW_MBIT / MBIT]
            replaced = Crowd(some, fresh, REPLACED_AFTER * all_s)
            gpb, torrent = GpbSwarm(bench.programs), Libtorrent()
            for tool, name, crowd, bounds in (
                (gpb, f'{LEECHERS} leechers', Crowd(some), Bounds(all_s)),
                (torrent, f'{LEECHERS} leechers', Crowd(some), Bounds(all_s)),
                (gpb, f'{MANY} leechers', Crowd(many), Bounds(least_s(source, MANY))),
                (
                    gpb,
                    f'{LEECHERS} leechers, one of which sends {SLOW_MBIT} Mbit/s',
                    Crowd([*some[:-1], slow]),
                    Bounds(max(all_s, LEECHERS / sum(rates) * once_s(source))),
                ),
                (
                    gpb,
                    f'{LEECHERS} leechers, {REPLACED} killed and {REPLACED} new at {REPLACED_AFTER:.0%}',
                    replaced,
                    bounds_replaced(source, replaced),
                ),
            ):
                packages = tool.missing()
                if not packages:
                    tool.prepare(source, work / 'prepared')
                one_run = functools.partial(run, tool, hosts.seeder, crowd, source, work, bounds)
                table.row(f'{tool.name}, {name}', one_run, quality, packages)
            table.fill(bench.runs)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        shutil.rmtree(source.folder)
    return table


def far_links(bench):
    """S9: the seeder and each leecher with a link of its own, far from each other."""
    source = content.one_file(bench.work / 'swarm', bench.scaled(FILE_BYTES))
    title = f'S9: a swarm for one file of {amount(source.bytes)}, {FAR_RTT_MS} ms between all, everybody sends {MBIT} Mbit/s'
    table = Table(title, ('/ bound', 'copies from the seeder', 'fetched twice'), ('leechers', 'seeder'))
    work = bench.work / 'S9-swarm'
    tool = GpbSwarm(bench.programs)
    try:
        with FarSwarm(FAR_RTT_MS, MBIT, [MBIT] * LEECHERS) as hosts:
            bounds = Bounds(least_s(source, LEECHERS))
            one_run = functools.partial(run, tool, hosts.seeder, Crowd(hosts.leechers), source, work, bounds)
            table.row(f'{tool.name}, {LEECHERS} leechers', one_run, quality, tool.missing())
            table.fill(bench.runs)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        shutil.rmtree(source.folder)
    return table


def loopback(bench):
    """Everybody on one host without limits: where nothing but computing takes time, several leechers must get no less
    in all than one."""
    source = content.one_file(bench.work / 'swarm', bench.scaled(LOOPBACK_BYTES))
    title = f'S4: one file of {amount(source.bytes)} over loopback, to one and to {LOOPBACK_LEECHERS} at once'
    table = Table(title, ('MiB/s, all leechers', 'of one alone', 'fetched twice'), ('leechers', 'seeder'))
    work = bench.work / 'S4'
    tool = GpbSwarm(bench.programs)
    alone = []

    def cells(leechers, samples):
        rate = leechers * source.bytes / statistics.median(s.seconds for s in samples)
        of_one = rate * statistics.median(s.seconds for s in alone) / source.bytes if alone else 0
        return f'{rate / MIB:.0f}', f'{of_one:.2f}', percent(samples)

    def run_alone(host):
        alone.append(run(tool, host, Crowd([host]), source, work))
        return alone[-1]

    try:
        with Loopback() as hosts:
            host = hosts.client
            crowd = Crowd([host] * LOOPBACK_LEECHERS)
            table.row('GPB, one leecher', functools.partial(run_alone, host), functools.partial(cells, 1))
            at_once = functools.partial(run, tool, host, crowd, source, work)
            table.row(
                f'GPB, {LOOPBACK_LEECHERS} leechers at once', at_once, functools.partial(cells, LOOPBACK_LEECHERS))
            table.fill(bench.runs)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        shutil.rmtree(source.folder)
    return table


def run(tool, seeder_host, crowd, source, work, bounds=None):
    """One run; what arrived at those that were not killed is compared with the source. Without `bounds` the seeder has
    no link of its own, and what it sends is not counted."""
    place = work / 'run'
    place.mkdir(parents=True)
    folder = work / tool.server / seeder_host.name
    folder.mkdir(parents=True, exist_ok=True)
    leechers, dests = [], []
    try:
        with contextlib.ExitStack() as programs:
            seeder = programs.enter_context(tool.serve(seeder_host, source, folder))

            def start(host):
                dest = place / f'dest{len(dests)}'
                dest.mkdir()
                dests.append(dest)
                argv = tool.leech(host, seeder, crowd.hosts, source, dest)
                leechers.append(programs.enter_context(Program(argv, place / f'log{len(dests)}', speaks=True)))

            sent, cpu_s = seeder_host.sent() if bounds else 0, cpu_seconds(seeder.pid)
            pids = []
            watch = programs.enter_context(MemoryWatch(pids, [seeder.pid]))
            began = joined = time.monotonic()
            for host in crowd.hosts:
                start(host)
                pids.append(leechers[-1].pid)
            staying = range(len(leechers) - len(crowd.fresh))
            if crowd.fresh:
                time.sleep(max(0, began + crowd.replaced_after_s - time.monotonic()))
                for killed in leechers[staying.stop :]:
                    killed.kill()
                joined = time.monotonic()
                for host in crowd.fresh:
                    start(host)
                    pids.append(leechers[-1].pid)
            whole = [*staying, *range(len(crowd.hosts), len(leechers))]
            done = wait_lines([leechers[i] for i in whole], tool.says_done)
            sent = seeder_host.sent() - sent if bounds else 0
            cpu_s = sum(leecher.cpu_s or cpu_seconds(leecher.pid) for leecher in leechers), cpu_seconds(seeder.pid) - cpu_s
            for i in whole:
                if why := source.differs_from(dests[i] / source.entry):
                    raise Failed(why)
    finally:
        shutil.rmtree(place)
    stayed_s = max(at for at, _ in done[: len(staying)]) - began
    over_bounds = (stayed_s / bounds.staying_s,) if bounds else ()
    if crowd.fresh:
        joined_s = max(at for at, _ in done[len(staying) :]) - joined
        over_bounds += (joined_s / bounds.joining_s,)
    twice = sum(int(wasted) for _, [wasted] in done) / (len(done) * source.bytes)
    copies = sent / source.bytes * PAYLOAD_SHARE
    return Outcome(max(at for at, _ in done) - began, cpu_s, tuple(watch.peaks), over_bounds, copies, twice)


def once_s(source):
    """In how many seconds a host can send the file once."""
    return source.bytes / (MBIT * 1e6 / 8 * PAYLOAD_SHARE)


def least_s(source, leechers):
    """The bound for leechers that are as fast as the seeder."""
    return (1 + (leechers.bit_length() - 1) / chunks(source.bytes)) * once_s(source)


def bounds_replaced(source, crowd):
    """The bounds when some are replaced."""
    fresh = len(crowd.fresh)
    stay, after_s, all_s = len(crowd.hosts) - fresh, crowd.replaced_after_s, once_s(source)
    shared_s = (stay * (all_s - after_s) + fresh * all_s) / (1 + stay + fresh)
    staying_s = least_s(source, stay)
    return Bounds(staying_s, max(shared_s, staying_s - after_s))


def chunks(length):
    """In how many chunks GPB moves a file of this length."""
    wanted = 1 << (-(-length // CHUNKS_AIM) - 1).bit_length()
    return -(-length // min(max(wanted, CHUNK_LEN_MIN), CHUNK_LEN_MAX))


def quality(samples):
    """The last cells of a row."""
    over_bounds = [f'{statistics.median(ratios):.2f}' for ratios in zip(*(s.over_bounds for s in samples))]
    return ', new ones '.join(over_bounds), f'{statistics.median(s.copies for s in samples):.2f}', percent(samples)


def percent(samples):
    """How much of all that was needed came twice or in vain."""
    return f'{100 * statistics.median(s.twice for s in samples):.1f} %'
