"""Scenarios in which a client fetches a content from servers."""

import functools
import shutil

from hosts import Far, Lan, Loopback, NearAndFar
from programs import Failed, measure
from table import Table, amount
from tools import Aria2, Curl, CurlThenSum, Gpb, GpbFinds, GpbLimited, Libtorrent, Rsync, Tar

SERVERS = 4
SERVER_MBIT = 100
# Round trips in ms, Mbit/s, and the part of the packets that is lost.
FAR = [
    (20, None, 0), (50, None, 0), (100, None, 0), (200, None, 0),
    (100, 100, 0), (200, 100, 0), (100, 100, 0.001), (200, 100, 0.001),
]
# Of a far holder in ms, and MB/s that it and a near one send.
FAR_HOLDER_MS, HOLDER_MB = 120, 20
# Of a frame on Ethernet with 1500 bytes of IP, so many are left for data below TCP with time stamps.
PAYLOAD_SHARE = 1448 / 1514


def one_big_file(bench):
    """S1: as fast as one connection between two programs goes."""
    content = bench.big_file
    title = f'S1: one file of {amount(content.bytes)} from one server, over loopback'
    tools = [Gpb(bench.programs), Curl(), CurlThenSum(), Rsync(), Aria2(), Libtorrent()]
    with Loopback() as hosts:
        return compare(bench, title, hosts, content, tools)


def many_small_files(bench):
    """S2: where each file costs more than its bytes."""
    content = bench.small_files
    title = f'S2: {content.files:,} files of {amount(content.bytes)} in all from one server, over loopback'
    with Loopback() as hosts:
        return compare(bench, title, hosts, content, [Gpb(bench.programs), Rsync(), Tar()])


def four_servers(bench):
    """S3: several servers at once, each with a link that is slow for both ends."""
    content = bench.file_of_four
    title = f'S3: one file of {amount(content.bytes)} from {SERVERS} servers with {SERVER_MBIT} Mbit/s each'
    tools = [Gpb(bench.programs), GpbFinds(bench.programs), Aria2(), Libtorrent()]
    ideal_s = content.bytes / (SERVERS * SERVER_MBIT * 1e6 / 8 * PAYLOAD_SHARE)
    with Lan(SERVERS, SERVER_MBIT) as hosts:
        return compare(bench, title, hosts, content, tools, ideal_s)


def far_server(bench, rtt_ms, mbit=None, loss=0.0):
    """S9: where round trips cost more than bytes. TCP is the one that the system uses."""
    content = bench.file_from_afar
    limit = (f', {mbit} Mbit/s' if mbit else '') + (f', {loss:.1%} lost' if loss else '')
    title = f'S9: one file of {amount(content.bytes)} from one server, round trip of {rtt_ms} ms{limit}'
    ideal_s = content.bytes / (mbit * 1e6 / 8 * PAYLOAD_SHARE) if mbit else None
    with Far(rtt_ms, mbit, loss) as hosts:
        return compare(bench, title, hosts, content, [Gpb(bench.programs), Curl(), Aria2()], ideal_s, Curl)


def near_and_far(bench):
    """S9: two holders whose programs limit what they send, one of them far."""
    content = bench.file_from_afar
    title = (f'S9: one file of {amount(content.bytes)} from a server beside the client and one with a round trip of '
             f'{FAR_HOLDER_MS} ms, {HOLDER_MB} MB/s each')
    ideal_s = content.bytes / (2 * HOLDER_MB * 1e6)
    with NearAndFar(FAR_HOLDER_MS) as hosts:
        return compare(bench, title, hosts, content, [GpbLimited(bench.programs, HOLDER_MB)], ideal_s)


def far_small_files(bench):
    """S9: the same with files that are nothing but round trips."""
    content = bench.small_files_from_afar
    title = f'S9: {content.files:,} files of {amount(content.bytes)} in all from one server, round trip of 100 ms'
    with Far(100) as hosts:
        return compare(bench, title, hosts, content, [Gpb(bench.programs), Rsync(), Tar()])


def compare(bench, title, hosts, content, tools, ideal_s=None, reference=Rsync):
    """Measures all tools that are there."""
    table = Table(title, ('verified', 'encrypted'), ('client', 'servers' if ideal_s else 'server'), ideal_s)
    work = bench.work / title.split(':')[0]
    for tool in tools:
        packages = tool.missing()
        if not packages:
            tool.prepare(content, work / 'prepared')
        one_run = functools.partial(run, tool, hosts, content, work)
        table.row(tool.name, one_run, (tool.verified, tool.encrypted), packages, reference=isinstance(tool, reference))
    table.fill(bench.runs)
    shutil.rmtree(work)
    return table


def run(tool, hosts, content, work):
    """One run with servers of its own; what arrived is compared with the source."""
    place = work / 'run'
    dest = place / 'dest'
    dest.mkdir(parents=True)
    servers = []
    try:
        for host in hosts.servers:
            folder = work / tool.server / host.name
            folder.mkdir(parents=True, exist_ok=True)
            servers.append(tool.serve(host, content, folder))
        sample = measure(tool.fetch(hosts.client, servers, content, dest), place / 'log', servers)
        if why := content.differs_from(dest / content.entry):
            raise Failed(why)
        return sample
    finally:
        for server in servers:
            server.stop()
        shutil.rmtree(place)
