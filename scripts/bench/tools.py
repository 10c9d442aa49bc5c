"""The programs that are measured: how each serves a content, and how its client fetches it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from hosts import free_port
from programs import ENVIRONMENT, Failed, Program

HERE = Path(__file__).resolve().parent


class Tool:
    """A way to get files from one host to another."""

    name = ''
    # Tools that have the same kind of server share what it keeps from run to run.
    server = ''
    verified = 'no'
    encrypted = 'no'
    # Program: the package that brings it.
    needs = {}

    def missing(self):
        """The packages that would have to be installed."""
        return [package for program, package in self.needs.items() if not found(program)]

    def prepare(self, content, work):
        """What is done once for a content, untimed."""

    def serve(self, host, content, work):
        """Starts a server and waits until it can be asked; a program with an `address`."""
        raise NotImplementedError

    def fetch(self, client, servers, content, dest):
        """The command line that fetches `content.entry` into the directory `dest`."""
        raise NotImplementedError


class Gpb(Tool):
    """GPB with the addresses of the servers given, like all others."""

    name = 'GPB'
    server = 'gpb'
    verified = 'SHA-256 tree'
    encrypted = 'TLS 1.3'

    def __init__(self, programs):
        self.programs = programs

    # Further ones of the server.
    options = ()
    # A machine that is busy makes it slow, which is measured, and is no failure.
    patient = ('--timeout', '300')

    def serve(self, host, content, work):
        # The state stays from run to run, so that only the first start hashes.
        options = ['--dir', content.folder, '--state', work / 'state', '--bind', host.ip, '--port', '0', *self.options]
        server = Program(host.command(self.programs / 'gpb-server', *options), work / 'log', speaks=True)
        [server.address] = server.wait_line(r'^listening peer=\S+ addr=(\S+)$')
        server.wait_line(r'^ready ')
        return server

    def fetch(self, client, servers, content, dest):
        given = ['--no-multicast', *(word for server in servers for word in ('--peer', server.address))]
        return self.get(client, content, dest, given)

    def get(self, client, content, dest, options):
        """`gpb-client get` as a new user would run it, but alone with its servers."""
        options = ['--dir', dest, '--state', dest.parent / 'state', '--bind', client.ip, '--no-share', '-q', *options]
        return client.command(self.programs / 'gpb-client', 'get', content.entry, *options, *self.patient)


class GpbLimited(Gpb):
    """GPB whose servers limit what they send."""

    def __init__(self, programs, server_mb):
        super().__init__(programs)
        self.options = ('--upload-limit', f'{server_mb}MB')


class GpbSwarm(Gpb):
    """GPB where who fetches also gives, as it does unless told otherwise: told of the seeder alone, it finds the rest."""

    # In the group: bytes that came twice or in vain.
    says_done = r'^\{"event":"done",.*"wasted":(\d+)'

    def leech(self, host, seeder, hosts, content, dest):
        """The command line that fetches `content.entry` from the seeder and from who else runs one of `hosts`, says
        that it is done, and goes on giving."""
        options = ['--dir', dest, '--state', dest.parent / f'state.{dest.name}', '--seed', '600', '--json', *self.patient]
        if host.ip.startswith('127.'):
            options += ['--bind', host.ip]
        command = [self.programs / 'gpb-client', 'get', content.entry, *options, '--peer', seeder.address]
        return host.command(*command)


class GpbFinds(Gpb):
    """GPB that is told no address."""

    name = 'GPB, servers found by multicast'

    def fetch(self, client, servers, content, dest):
        return self.get(client, content, dest, [])


class Http(Tool):
    """What fetches from nginx."""

    server = 'nginx'
    needs = {'nginx': 'nginx-light'}

    def serve(self, host, content, work):
        port = free_port()
        config = work / 'nginx.conf'
        config.write_text(NGINX.format(
            user='user root;' if os.geteuid() == 0 else '', work=work, ip=host.ip, port=port, folder=content.folder,
        ))
        server = Program(host.command('nginx', '-e', work / 'log', '-c', config), work / 'log')
        server.wait_port(port)
        server.address = f'{host.ip}:{port}'
        return server

    @staticmethod
    def urls(servers, content):
        """Where the content is."""
        return [f'http://{server.address}/{content.entry}' for server in servers]


class Curl(Http):
    """One stream."""

    name = 'nginx, curl'
    needs = {**Http.needs, 'curl': 'curl'}

    def fetch(self, client, servers, content, dest):
        return client.command('curl', '-sS', '--fail', '-o', dest / content.entry, *self.urls(servers[:1], content))


class CurlThenSum(Curl):
    """One stream, and the sum that one compares with a published one."""

    name = 'nginx, curl, then sha256sum'
    verified = 'SHA-256 of the file'

    def fetch(self, client, servers, content, dest):
        download = super().fetch(client, servers, content, dest)
        return ['sh', '-ec', '"$@"; sha256sum "$0" > /dev/null', dest / content.entry, *download]


class Aria2(Http):
    """Several connections, to one server or to many."""

    name = 'nginx, aria2'
    needs = {**Http.needs, 'aria2c': 'aria2'}

    def fetch(self, client, servers, content, dest):
        each = 4 if len(servers) == 1 else 1
        options = [f'-x{each}', f'-s{each * len(servers)}', '-k1M', '--file-allocation=none', '-q']
        where = ['-d', dest, '-o', content.entry]
        return client.command('aria2c', *options, *where, *self.urls(servers, content))


class Rsync(Tool):
    """The daemon, without ssh."""

    name = 'rsync daemon'
    server = 'rsync'
    verified = 'checksum of each file'
    needs = {'rsync': 'rsync'}

    def serve(self, host, content, work):
        port = free_port()
        config = work / 'rsyncd.conf'
        user = 'uid = 0\ngid = 0\n' if os.geteuid() == 0 else ''
        config.write_text(f'{user}use chroot = no\nreverse lookup = no\nlog file = {work}/log\n'
                          f'[share]\npath = {content.folder}\nread only = yes\n')
        options = ['--daemon', '--no-detach', f'--config={config}', f'--address={host.ip}', f'--port={port}']
        server = Program(host.command('rsync', *options), work / 'log')
        server.wait_port(port)
        server.address = f'{host.ip}:{port}'
        return server

    def fetch(self, client, servers, content, dest):
        return client.command('rsync', '-a', f'rsync://{servers[0].address}/share/{content.entry}', f'{dest}/')


class Tar(Tool):
    """tar on both ends of a bare TCP connection."""

    name = 'tar over TCP'
    server = 'tar'
    needs = {'tar': 'tar'}

    def serve(self, host, content, work):
        argv = [sys.executable, '-IS', HERE / 'tar_tcp.py', 'serve', host.ip, content.folder, content.entry]
        server = Program(host.command(*argv), work / 'log', speaks=True)
        [server.address] = server.wait_line(r'^ready (\S+)$')
        return server

    def fetch(self, client, servers, content, dest):
        ip, port = servers[0].address.split(':')
        return client.command(sys.executable, '-IS', HERE / 'tar_tcp.py', 'fetch', ip, port, dest)


class Libtorrent(Tool):
    """BitTorrent v2 without its encryption, tracker or search: the peers are told each other's addresses."""

    name = 'libtorrent v2'
    server = 'libtorrent'
    verified = 'SHA-256 tree'
    says_done = r'^done (\d+)$'
    port = 6881

    def __init__(self):
        self.python = next((p for p in (sys.executable, '/usr/bin/python3') if has_libtorrent(p)), None)

    def missing(self):
        return [] if self.python else ['python3-libtorrent']

    def prepare(self, content, work):
        work.mkdir(parents=True, exist_ok=True)
        with Program(self.script('create', content, content.path), work / 'log') as program:
            program.wait()

    def serve(self, host, content, work):
        argv = host.command(*self.script('seed', content, content.folder, host.ip))
        server = Program(argv, work / 'log', speaks=True)
        [server.address] = server.wait_line(r'^ready (\S+)$')
        return server

    def fetch(self, client, servers, content, dest):
        addresses = [server.address for server in servers]
        return client.command(*self.script('fetch', content, dest, client.ip, *addresses))

    def leech(self, host, seeder, hosts, content, dest):
        """As that of `GpbSwarm`, but told where all are, which a tracker would tell."""
        others = [f'{other.ip}:{self.port}' for other in hosts if other is not host]
        return host.command(*self.script('leech', content, dest, f'{host.ip}:{self.port}', seeder.address, *others))

    def script(self, command, content, *args):
        """The command line of the script that makes a program of the library."""
        torrent = content.folder.parent / f'{content.folder.name}.torrent'
        return [self.python, HERE / 'torrent.py', command, torrent, *args]


def found(program):
    """Where a program is, if it is installed."""
    return shutil.which(program, path=ENVIRONMENT['PATH'])


def has_libtorrent(python):
    """Whether that Python can be used for BitTorrent."""
    if not found(python):
        return False
    return subprocess.run([python, '-c', 'import libtorrent'], stderr=subprocess.DEVNULL, check=False).returncode == 0


def serve_all(tool, hosts, content, work):
    """Starts the servers of a tool, one on each host; none stays if one fails."""
    servers = []
    try:
        for host in hosts:
            folder = work / tool.server / host.name
            folder.mkdir(parents=True, exist_ok=True)
            servers.append(tool.serve(host, content, folder))
        return servers
    except Failed:
        for server in servers:
            server.stop()
        raise


NGINX = '''
{user}
daemon off;
worker_processes auto;
pid {work}/nginx.pid;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    client_body_temp_path {work}/body;
    proxy_temp_path {work}/proxy;
    fastcgi_temp_path {work}/fastcgi;
    uwsgi_temp_path {work}/uwsgi;
    scgi_temp_path {work}/scgi;
    server {{ listen {ip}:{port}; root {folder}; }}
}}
'''
