"""S8: how long a server takes until it is ready, beside programs that only hash. All files are in memory."""

import functools
import os
import shutil

from hosts import Loopback
from programs import measure
from table import Table, amount
from tools import found

EACH = 'find "$0" -type f -print0 | xargs -0 -n 256 "$@" > /dev/null'


def one_big_file(bench):
    """Where the hash is all that counts."""
    content = bench.big_file
    return compare(bench, f'S8: hash one file of {amount(content.bytes)}', content, {
        'sha256sum': ['sha256sum', content.path],
        'b3sum': ['b3sum', content.path],
    })


def many_small_files(bench):
    """Where each file has to be found, opened and remembered."""
    content = bench.small_files
    with_xargs = ['sh', '-ec', EACH, content.path, f'-P{os.cpu_count()}']
    return compare(bench, f'S8: hash {content.files:,} files of {amount(content.bytes)} in all', content, {
        f'sha256sum, {os.cpu_count()} at once': [*with_xargs, 'sha256sum'],
        f'b3sum, {os.cpu_count()} at once': [*with_xargs, 'b3sum'],
    })


def compare(bench, title, content, commands):
    """Measures a server's first start, its restart, and the commands; the first of these is the reference."""
    table = Table(title, ('hash',))
    work = bench.work / 'S8'
    with Loopback() as hosts:
        start = functools.partial(until_ready, bench, hosts.client, content, work)
        table.row('GPB, first start', functools.partial(start, True), ('SHA-256 tree',))
        table.row('GPB, restart', functools.partial(start, False), ('known from before',))
        for name, command in commands.items():
            program = name.split(',')[0]
            one_run = functools.partial(measure, hosts.client.command(*command), bench.work / 'log')
            hash_name = 'SHA-256' if program == 'sha256sum' else 'BLAKE3'
            table.row(name, one_run, (hash_name,), [] if found(program) else [program], reference=program == 'sha256sum')
        table.fill(bench.runs)
    shutil.rmtree(work)
    return table


def until_ready(bench, host, content, work, first):
    """One start of a server: the first with nothing known, or one more with what that one left behind."""
    if first:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
    options = ['--dir', content.folder, '--state', work / 'state', '--bind', host.ip, '--port', '0', '--no-multicast']
    return measure(host.command(bench.programs / 'gpb-server', *options), bench.work / 'log', until=r'^ready ')
