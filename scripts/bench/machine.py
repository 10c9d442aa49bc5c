"""What was measured with: the machine and the versions of the programs."""

import os
import platform
import re
import subprocess
import time

from programs import ENVIRONMENT
from tools import Libtorrent, found

# What hashing and encryption run on; the second name is that of ARM.
CPU_FLAGS = ('aes', 'sha_ni', 'sha2', 'avx2', 'avx512f')
VERSIONS = {
    'nginx': ['nginx', '-v'],
    'curl': ['curl', '--version'],
    'aria2': ['aria2c', '--version'],
    'rsync': ['rsync', '--version'],
    'tar': ['tar', '--version'],
    'b3sum': ['b3sum', '--version'],
}


def describe(programs):
    """One paragraph."""
    with open('/proc/cpuinfo') as file:
        info = file.read()
    model = re.search(r'^(?:model name|Model)\s*: (.*)', info, re.MULTILINE)
    flags = re.search(r'^(?:flags|Features)\s*: (.*)', info, re.MULTILINE)
    able = [flag for flag in CPU_FLAGS if flags and flag in flags[1].split()]
    memory = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30
    parts = [
        f'{model[1] if model else platform.machine()} ({" ".join(able)}), {os.cpu_count()} cores, {memory:.0f} GiB',
        f'Linux {platform.release()}, TCP {congestion_control()}',
        time.strftime('%Y-%m-%d'),
    ]
    versions = {'GPB': version([programs / 'gpb-client', '--version'])}
    versions |= {name: version(command) for name, command in VERSIONS.items() if found(command[0])}
    if python := Libtorrent().python:
        versions['libtorrent'] = version([python, '-c', 'import libtorrent; print(libtorrent.__version__)'])
    return f'{", ".join(parts)}. {", ".join(f"{name} {number}" for name, number in versions.items())}.'


def congestion_control():
    """How TCP paces itself here: with `bbr` single connections are slower over loopback than with `cubic`."""
    try:
        with open('/proc/sys/net/ipv4/tcp_congestion_control') as file:
            return file.read().strip()
    except OSError:
        return '?'


def version(command):
    """The number that a program says first."""
    said = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=ENVIRONMENT, check=False).stdout
    number = re.search(r'\d+(\.\d+)+', said.decode(errors='replace'))
    return number[0] if number else '?'
