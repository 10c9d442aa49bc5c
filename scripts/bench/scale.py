"""How the costs of one server and one client grow with the number of files and with the length of a file."""

import functools
import os
import shutil

import programs
from growth import Growth
from hosts import Loopback, Unavailable, why_no_namespaces
from programs import Failed, Program
from table import amount

FILE_COUNTS = (1_000, 10_000, 100_000, 1_000_000)
FILES_PER_DIRECTORY = 1000
LENGTHS = (1 << 30, 32 << 30, 1 << 40)
# The disk of a client has no room for any of these but as holes.
SMALL_DISK = '16m'
# Peaks are short, and the more memory the longer.
SAMPLES_PER_S = 200
measure = functools.partial(programs.measure, samples_per_s=SAMPLES_PER_S)
LEGEND = f'''One run each: seconds, and the most anonymous memory at once, looked at {SAMPLES_PER_S} times a second, of the client
(where there is one) + the server. Last step: by how much the last column is dearer than the one before.'''


def many_entries(bench):
    """Up to a million files, each with another content of a few bytes."""
    counts = [bench.scaled(count) for count in FILE_COUNTS]
    table = Growth(
        'Scale of files',
        [f'{count:,} files' for count in counts],
        LEGEND,
    )
    work = bench.work / 'scale'
    shared = work / 'shared'
    made = 0
    with Loopback() as hosts:
        for count in counts:
            grow_tree(shared / 'tree', made, count)
            made = count
            measure_entries(bench, table, hosts, count, work)
    shutil.rmtree(work)
    return table


def measure_entries(bench, table, hosts, count, work):
    """The column of one number of files."""
    column, log, place = f'{count:,} files', work / 'log', work / 'run'
    state, dest = place / 'state', place / 'dest'
    dest.mkdir(parents=True)
    serve = server_command(bench, hosts, work / 'shared', state)
    table.run('first start', column, lambda: measure(serve, log, until=ready(count)))
    table.run('restart', column, lambda: measure(serve, log, until=ready(count)))
    with Program(serve, log, speaks=True) as server:
        [address] = server.wait_line(r'^listening peer=\S+ addr=(\S+)$')
        server.wait_line(ready(count))

        def client(command, *words, log=log, until=None):
            argv = client_command(bench, hosts, address, dest, place, command, *words)
            return measure(argv, log, [server], until)

        def list_all():
            said = place / 'listed'
            sample = client('list', log=said)
            with open(said, 'rb') as lines:
                if (listed := sum(b'holder' in line for line in lines)) != count:
                    raise Failed(f'{listed} of {count} files were listed')
            said.unlink()
            return sample

        one = entry_name(count // 2)
        table.run('list of all', column, list_all)
        table.run('get of one by its name', column, lambda: client('get', f'tree/{one}', '--no-share', '-q'))
        if not table.failures and (dest / 'tree' / one).read_bytes() != content_of(count // 2):
            table.failures['get of one by its name'] = f'{column}: another content'
        other = f'**/{os.path.basename(entry_name(count - 1))}'
        table.run('get of one by a pattern', column, lambda: client('get', other, '--no-share', '-q'))
        first = r'"event":"file"'
        table.run('get of all, to the first file', column, lambda: client('get', 'tree', '--no-share', '--json', until=first))
    shutil.rmtree(place)


def large_files(bench):
    """Up to a tebibyte of holes, which the client knows by their digests: only the list travels."""
    if why := why_no_namespaces():
        raise Unavailable(why)
    lengths = [bench.scaled(length) for length in LENGTHS]
    table = Growth(
        'Scale of a sparse file',
        [amount(length) for length in lengths],
        LEGEND,
    )
    work = bench.work / 'scale'
    shared, dest, log = work / 'shared', work / 'dest', work / 'log'
    shared.mkdir(parents=True)
    dest.mkdir()
    with Loopback() as hosts:
        for length in lengths:
            column, state = amount(length), work / column_name(length)
            with open(shared / 'file.bin', 'wb') as file:
                file.truncate(length)
            serve = server_command(bench, hosts, shared, state)
            table.run('first start', column, lambda: measure(serve, log, until=ready(1)))
            table.run('restart', column, lambda: measure(serve, log, until=ready(1)))
            with Program(serve, log, speaks=True) as server:
                [address] = server.wait_line(r'^listening peer=\S+ addr=(\S+)$')
                server.wait_line(ready(1))
                get = client_command(bench, hosts, address, dest, state, 'get', 'file.bin', '--no-share', '-q')
                get = ['unshare', '--mount', 'sh', '-c', ON_SMALL_DISK, dest, *get]
                table.run('get', column, lambda: measure(get, log, [server]))
    shutil.rmtree(work)
    return table


# Runs the client where its directory has room for holes alone.
ON_SMALL_DISK = f'mount -t tmpfs -o size={SMALL_DISK} none "$0" && exec "$@"'


def server_command(bench, hosts, shared, state):
    """A server that keeps what it knows in `state`."""
    options = ['--dir', shared, '--state', state, '--bind', hosts.servers[0].ip, '--port', '0', '--no-multicast']
    return hosts.servers[0].command(bench.programs / 'gpb-server', *options)


def client_command(bench, hosts, address, dest, place, command, *words):
    """A client that asks the server at `address`."""
    options = ['--dir', dest, '--state', place / 'client', '--bind', hosts.client.ip, '--no-multicast', '--peer', address]
    # However busy the machine is, it waits for the server.
    options += ['--wait' if command == 'list' else '--timeout', '300']
    return hosts.client.command(bench.programs / 'gpb-client', command, *words, *options)


def ready(count):
    """What a server says when it offers so many files."""
    return rf'^ready files={count} '


def grow_tree(tree, made, count):
    """Adds the files from number `made` on, so that there are `count`."""
    for number in range(made, count):
        if number % FILES_PER_DIRECTORY == 0:
            os.makedirs(tree / entry_name(number).partition('/')[0])
        with open(f'{tree}/{entry_name(number)}', 'wb') as file:
            file.write(content_of(number))


def entry_name(number):
    """Names as long as those of photographs or samples."""
    return f'set{number // FILES_PER_DIRECTORY:04}/sample{number:08}.dat'


def content_of(number):
    """No two are the same."""
    return b'%08d' % number


def column_name(length):
    """A name for a directory."""
    return f'state{length}'
