"""tar on both ends of a TCP connection: `tar_tcp.py serve IP DIR ENTRY`, `tar_tcp.py fetch IP PORT DIR`."""

import os
import socket
import subprocess
import sys


def serve(ip, folder, entry):
    """Sends an archive to everyone who connects."""
    listener = socket.create_server((ip, 0))
    print('ready %s:%d' % listener.getsockname(), flush=True)
    while True:
        connection, _ = listener.accept()
        with connection:
            subprocess.run(['tar', '-C', folder, '-cf', '-', entry], stdout=connection, check=False)


def fetch(ip, port, folder):
    """Becomes a tar that reads from the connection."""
    connection = socket.create_connection((ip, int(port)))
    os.dup2(connection.fileno(), 0)
    os.execvp('tar', ['tar', '-C', folder, '-xf', '-'])


{'serve': serve, 'fetch': fetch}[sys.argv[1]](*sys.argv[2:])
