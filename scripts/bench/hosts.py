"""Where programs run: network namespaces where these can be made, else this machine's loopback interface."""

import os
import re
import shutil
import socket
import subprocess
from dataclasses import dataclass, field

from link import Link
from programs import ENVIRONMENT, Failed


class Unavailable(Exception):
    """There can be no such hosts here."""


@dataclass
class Host:
    """A host as its programs see it."""

    name: str
    ip: str
    enter: list = field(default_factory=list)

    def command(self, *argv):
        """The command line that runs there."""
        return [*self.enter, *argv]

    def sent(self):
        """Bytes that passed the limit of its `eth0`, each frame with its headers. The interface's own counter takes
        the headers of frames that were handed over together only once."""
        argv = self.command('tc', '-s', 'qdisc', 'show', 'dev', 'eth0')
        said = subprocess.run(argv, stdout=subprocess.PIPE, env=ENVIRONMENT, check=False).stdout
        if found := re.search(rb'Sent (\d+) bytes', said):
            return int(found[1])
        raise Failed(f'{self.name} does not tell what it sent')


class Namespace:
    """A network namespace, held open by a process that ends when this one does, however it ends."""

    def __init__(self):
        self._holder = subprocess.Popen(
            ['unshare', '--net', 'sh', '-c', 'echo made; exec cat > /dev/null'],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=ENVIRONMENT,
            preexec_fn=os.setpgrp,
        )
        self.pid = self._holder.pid
        if not self._holder.stdout.readline():
            self.close()
            raise Unavailable('no network namespace can be made')
        self.enter = ['nsenter', f'--net=/proc/{self.pid}/ns/net', '--']

    def sh(self, script):
        """Runs a shell script in it."""
        done = subprocess.run(
            [*self.enter, 'sh', '-ec', script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=ENVIRONMENT,
            check=False,
        )
        if done.returncode != 0:
            said = ' '.join(done.stdout.decode(errors='replace').split())
            raise Unavailable(f'the network cannot be made: {said}')

    def close(self):
        """Lets go of it: it vanishes with the last program in it."""
        self._holder.stdin.close()
        self._holder.stdout.close()
        self._holder.wait()


class Loopback:
    """One host with nothing but a loopback interface; without root, this machine."""

    def __init__(self):
        self._namespace = None
        host = Host('loopback', '127.0.0.1')
        if not why_no_namespaces():
            self._namespace = Namespace()
            self._namespace.sh('ip link set lo up')
            host.enter = self._namespace.enter
        self.client, self.servers = host, [host]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._namespace:
            self._namespace.close()


class Bridged:
    """Hosts on one bridge."""

    def __init__(self):
        if why := why_no_namespaces():
            raise Unavailable(why)
        self._namespaces, self._links = [], []
        try:
            self._bridge = self._namespace()
            self._bridge.sh('ip link add br0 type bridge mcast_snooping 0 forward_delay 0; ip link set br0 up')
            self._make_hosts()
        except BaseException:
            self.__exit__()
            raise

    def _make_hosts(self):
        raise NotImplementedError

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for link in self._links:
            link.close()
        self._links = []
        for namespace in self._namespaces:
            namespace.close()

    def _namespace(self):
        namespace = Namespace()
        self._namespaces.append(namespace)
        return namespace

    def _host(self, name, number, limit='true'):
        namespace, ip = self._namespace(), f'10.80.66.{number}'
        self._bridge.sh(
            f'ip link add p{number} type veth peer name eth0 netns {namespace.pid}; ip link set p{number} master br0 up'
        )
        namespace.sh(f'ip link set lo up; ip addr add {ip}/24 brd + dev eth0; ip link set eth0 up; {limit}')
        return Host(name, ip, namespace.enter)

    def _far_host(self, name, number, distance, limit='true'):
        """A host whose link has that round trip in seconds, rate in Mbit/s or none, and loss."""
        if not os.path.exists('/dev/net/tun'):
            raise Unavailable('there is no /dev/net/tun')
        if missing := [name for name in ('rustc', 'setpriv') if not shutil.which(name)]:
            raise Unavailable(f'long links need {", ".join(missing)}')
        namespace, ip = self._namespace(), f'10.80.66.{number}'
        paths = [f'/proc/{each.pid}/ns/net' for each in (namespace, self._bridge)]
        self._links.append(Link((paths[0], 'eth0'), (paths[1], f'p{number}'), *distance))
        # A burst waits for the link's thread, or TCP would see losses that are none of the link's.
        self._bridge.sh(f'ip link set p{number} txqueuelen 10000 master br0 up')
        namespace.sh(
            f'ip link set lo up; ip addr add {ip}/24 brd + dev eth0; ip link set eth0 txqueuelen 10000 up; {limit}'
        )
        return Host(name, ip, namespace.enter)


class Lan(Bridged):
    """A client and several servers; what each server sends is limited, what the client sends is not."""

    def __init__(self, servers, server_mbit):
        self._servers, self._server_mbit = servers, server_mbit
        super().__init__()

    def _make_hosts(self):
        self.client = self._host('client', 1)
        limit = f'tc qdisc add dev eth0 root tbf rate {self._server_mbit}mbit burst 64kb latency 20ms'
        self.servers = [self._host(f'server{i}', 1 + i, limit) for i in range(1, self._servers + 1)]


class Far(Bridged):
    """A client and a server that is far from it."""

    def __init__(self, rtt_ms, mbit=None, loss=0.0):
        self._distance = (rtt_ms / 1000, mbit, loss)
        super().__init__()

    def _make_hosts(self):
        self.client = self._host('client', 1)
        self.servers = [self._far_host('server', 2, self._distance)]


class NearAndFar(Far):
    """A client, a server beside it, and one that is far from it."""

    def _make_hosts(self):
        super()._make_hosts()
        self.servers.insert(0, self._host('near', 3))


class Swarm(Bridged):
    """A seeder and leechers; what each host sends is limited, what it receives is not."""

    def __init__(self, seeder_mbit, leechers_mbit):
        self._seeder_mbit, self._leechers_mbit = seeder_mbit, leechers_mbit
        super().__init__()

    def _make_hosts(self):
        self.seeder = self._limited('seeder', 1, self._seeder_mbit)
        self.leechers = [self._limited(f'leecher{i}', 1 + i, mbit) for i, mbit in enumerate(self._leechers_mbit, 1)]

    def _limited(self, name, number, mbit):
        return self._host(name, number, self._limit(mbit))

    @staticmethod
    def _limit(mbit):
        return f'tc qdisc add dev eth0 root tbf rate {mbit}mbit burst 32kb latency 20ms'


class FarSwarm(Swarm):
    """The same with a round trip between all."""

    def __init__(self, rtt_ms, seeder_mbit, leechers_mbit):
        # A packet takes the links of both hosts.
        self._rtt_s = rtt_ms / 2000
        super().__init__(seeder_mbit, leechers_mbit)

    def _limited(self, name, number, mbit):
        return self._far_host(name, number, (self._rtt_s,), self._limit(mbit))


def why_no_namespaces():
    """What is missing for hosts of one's own; empty if nothing is."""
    if os.geteuid() != 0:
        return 'only root can make networks'
    missing = [p for p in ('unshare', 'nsenter', 'ip', 'tc') if not shutil.which(p, path=ENVIRONMENT['PATH'])]
    if missing:
        return f'{", ".join(missing)} not found (apt-get install util-linux iproute2)'
    able = subprocess.run(['unshare', '--net', 'true'], stderr=subprocess.DEVNULL, env=ENVIRONMENT, check=False)
    return '' if able.returncode == 0 else 'this root may not make networks'


def free_port():
    """A TCP port that nobody uses, for programs that cannot choose one themselves."""
    with socket.socket() as probe:
        probe.bind(('', 0))
        return probe.getsockname()[1]
